"""Finding and ending a playground's processes.

Nothing is trusted to have been recorded: a supervisor is recognised by its command line, which names the
playground's folder and the host. When process 1 of a host dies, the kernel kills everything in the host.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ShoalError

MODULE = "shoal.playground.supervisor"
_END_SECONDS = 10.0


@dataclass(frozen=True)
class Supervisor:
    """A supervisor process, as the machine sees it."""

    pid: int
    box: str
    is_init: bool
    """True for process 1 of a host; False for one that is still making its host."""


def parse_command_line(raw: bytes) -> tuple[str, str] | None:
    """The (folder, host) that a /proc/PID/cmdline names, if it is a supervisor's."""
    words = raw.rstrip(b"\0").split(b"\0")
    if len(words) < 4 or words[-3] != MODULE.encode() or words[-4] != b"-m":
        return None
    return os.fsdecode(words[-2]), os.fsdecode(words[-1])


def _is_init(status: str) -> bool:
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            ids = line.split()[1:]
            return len(ids) > 1 and ids[-1] == "1"
    return False


def _alive(status: str) -> bool:
    return "\nState:\tZ" not in status and "\nState:\tX" not in status


def find(directory: Path) -> list[Supervisor]:
    """The living supervisors of the playground in `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            named = parse_command_line((entry / "cmdline").read_bytes())
            if named is None or named[0] != str(directory):
                continue
            status = (entry / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if _alive(status):
            found.append(Supervisor(int(entry.name), named[1], _is_init(status)))
    return found


def inits(directory: Path) -> dict[str, int]:
    """Process 1 of each running host of the playground: its process id on the machine, by the host's name."""
    return {supervisor.box: supervisor.pid for supervisor in find(directory) if supervisor.is_init}


def kill(directory: Path, box: str | None = None) -> int:
    """End one host, or all, at once, and wait until all their processes are gone.

    Returns:
        How many hosts (and other namespaces of the playground) were running.

    Raises:
        ShoalError: something does not die: it hangs in the kernel.
    """
    deadline = time.monotonic() + _END_SECONDS
    seen: set[str] = set()
    while alive := [s for s in find(directory) if box in (None, s.box)]:
        for supervisor in alive:
            seen.add(supervisor.box)
            try:
                os.kill(supervisor.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            pids = ", ".join(str(s.pid) for s in alive)
            raise ShoalError(f"processes {pids} do not end: look at /proc/PID/stack; they hang in the kernel")
        time.sleep(0.01)
    return len(seen)
