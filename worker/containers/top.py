"""The processes of a container (`docker top`), as this machine's ps shows them."""

import asyncio
from collections.abc import Collection

from cluster.errors import InvalidArgument, Unavailable

USUAL = "-ef"


async def processes(pids: Collection[int], arguments: str) -> tuple[list[str], list[list[str]]]:
    """The titles and a row for each process. InvalidArgument for arguments without a column PID."""
    try:
        ps = await asyncio.create_subprocess_exec(
            "ps",
            *(arguments or USUAL).split(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise Unavailable("ps is not installed on this node: install the package procps") from None
    output, errors = await ps.communicate()
    if ps.returncode != 0:
        raise InvalidArgument(f"ps: {errors.decode(errors='replace').strip()}")
    return select(output.decode(errors="replace"), pids)


def select(output: str, pids: Collection[int]) -> tuple[list[str], list[list[str]]]:
    """What ps says of these processes. The last column may hold spaces."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return titles, rows
