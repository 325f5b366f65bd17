"""Processes by identity, not by number: pids are reused, also across restarts of the machine."""

import os
import signal
from functools import cache
from pathlib import Path

from worker.runtime.model import ProcessIdentity


@cache
def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a living process."""
    started = start_time(pid)
    return None if started is None else ProcessIdentity(pid=pid, start_time=started, boot_id=boot_id())


def open_process(identity: ProcessIdentity) -> int | None:
    """A pidfd of exactly that process; None when it is gone. The caller closes it."""
    if identity.boot_id != boot_id():
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # Checked after opening: from here on the descriptor can't come to mean another process.
    if start_time(identity.pid) != identity.start_time:
        os.close(descriptor)
        return None
    return descriptor


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process behind a pidfd; False when it has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def signal_number(name: str) -> int:
    """The number of `SIGTERM`, `TERM`, `15` or `RTMIN+3`; ValueError when there is none."""
    text = name.upper().removeprefix("SIG")
    if text.isdigit():
        number = int(text)
    else:
        base, plus, offset = text.partition("+")
        minus = ""
        if not plus:
            base, minus, offset = text.partition("-")
        try:
            number = int(signal.Signals[f"SIG{base}"])
            number += int(offset) if plus else -int(offset) if minus else 0
        except (KeyError, ValueError):
            raise ValueError(f"no such signal: {name!r}") from None
    if not 0 < number <= signal.SIGRTMAX:
        raise ValueError(f"no such signal: {name!r}")
    return number
