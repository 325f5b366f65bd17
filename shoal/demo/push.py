"""Push an archive to a registry that speaks plain HTTP: `python -m shoal.demo.push ARCHIVE REFERENCE`."""

import asyncio
import sys
from pathlib import Path

from cluster.errors import ShoalError
from cluster.seams import SystemClock
from worker.images.push import push_archive
from worker.images.reference import Reference
from worker.images.transport import HttpTransport


async def push(archive: Path, ref: str) -> str:
    """The pushed manifest's digest."""
    transport = HttpTransport("shoal-demo")
    try:
        return await push_archive(
            archive,
            ref,
            transport=transport,
            clock=SystemClock(),
            insecure_registries=[Reference.parse(ref).domain],
        )
    finally:
        await transport.close()


def main() -> None:
    """The command."""
    archive, ref = sys.argv[1:]
    try:
        print(asyncio.run(push(Path(archive), ref)))
    except (ShoalError, OSError) as error:
        sys.exit(f"can't push {ref}: {error}")


if __name__ == "__main__":
    main()
