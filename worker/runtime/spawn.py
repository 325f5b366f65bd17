"""Starting conmon and the OCI runtime with the least possible work: posix_spawn and waitpid in a few threads.

Every thread of the pool has a working directory of its own (unshare(CLONE_FS)), because conmon drops a file
named `oom` in the directory it was started in, and posix_spawn can't set one.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster.codec import UNREADABLE
from cluster.errors import ShoalError, Unavailable
from worker.runtime.syscalls import CLONE_FS, unshare

_SYNC_FD, _START_FD = 3, 4
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH}


class RuntimeFailed(ShoalError):
    """conmon or the OCI runtime refused; the message is theirs."""


def find_program(name: str) -> str:
    """Absolute path of a program, with advice when it is missing."""
    path = shutil.which(name, path=f"{_PATH}:{os.environ.get('PATH', '')}")
    if path is None:
        package = Path(name).name
        raise Unavailable(f"{name} is not installed on this node: install the package {package}")
    return path


@dataclass(frozen=True)
class Programs:
    """Absolute paths of the programs, and the OCI runtime's state directory."""

    conmon: str
    runtime: str
    state: Path

    def command(self, *arguments: str) -> list[str]:
        """A command line of the OCI runtime."""
        return [self.runtime, "--root", str(self.state), *arguments]


def thread_pool(workers: int) -> ThreadPoolExecutor:
    """Threads fit for `start_conmon`."""
    return ThreadPoolExecutor(workers, "container", initializer=lambda: unshare(CLONE_FS))


def _high(descriptor: int) -> int:
    """Move a descriptor out of the way of the numbers that the child will use."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


def read_all(descriptor: int) -> bytes:
    """Read to the end of a pipe, and close it."""
    parts: list[bytes] = []
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while part := pipe.read(65536):
            parts.append(part)
    return b"".join(parts)


def run(arguments: list[str], environment: Mapping[str, str] = _ENVIRONMENT) -> tuple[int, str]:
    """Run a program to its end; exit code and what it wrote to stderr."""
    read_end, write_end = os.pipe()
    try:
        write_end = _high(write_end)
        pid = os.posix_spawn(
            arguments[0],
            arguments,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, write_end, 2),
            ],
        )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    errors = read_all(read_end)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), errors.decode(errors="replace").strip()


def must_run(arguments: list[str]) -> None:
    """Run a program that has to succeed."""
    code, errors = run(arguments)
    if code != 0:
        raise RuntimeFailed(explain(errors) or f"{Path(arguments[0]).name} ended with status {code}")


def explain(message: str) -> str:
    """The OCI runtime's message without time stamp and program name."""
    lines = [line for line in message.splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    if text.startswith("{"):  # runc's JSON log
        try:
            text = str(msgspec.json.decode(text).get("msg", text))
        except (*UNREADABLE, AttributeError):
            return text
    # crun puts a time stamp before its message.
    head, colon, rest = text.partition(": ")
    if colon and head[:4].isdigit() and head.endswith("Z"):
        text = rest
    return text.strip()


def start_exit_code(message: str) -> int:
    """Docker's exit code for a command that could not be run: 127 not found, 126 not executable, else 128."""
    if "executable file" in message or ("No such file or directory" in message and "exec" in message):
        return 127
    if any(
        words in message
        for words in ("Permission denied", "permission denied", "Is a directory", "open executable")
    ):
        return 126
    return 128


class _Started(msgspec.Struct):
    data: int
    message: str = ""


def start_conmon(programs: Programs, bundle: Path, options: Sequence[str]) -> int:
    """Start conmon, which creates the container; its first process's pid, waiting to be let go by `start`.

    Call it in a thread of `thread_pool`.
    """
    os.chdir(bundle)
    sync_read, sync_write = os.pipe()
    start_read, start_write = os.pipe()
    opened = [sync_read, start_write]
    inherited = [_high(sync_write), _high(start_read)]
    try:
        pid = os.posix_spawn(
            programs.conmon,
            [
                *("conmon", "--api-version", "1", "-r", programs.runtime, "-b", str(bundle)),
                *("--runtime-arg", "--root", "--runtime-arg", str(programs.state)),
                *options,
            ],
            {**_ENVIRONMENT, "_OCI_SYNCPIPE": str(_SYNC_FD), "_OCI_STARTPIPE": str(_START_FD)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, "conmon.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                (os.POSIX_SPAWN_DUP2, inherited[0], _SYNC_FD),
                (os.POSIX_SPAWN_DUP2, inherited[1], _START_FD),
            ],
        )
        while inherited:
            os.close(inherited.pop())
        os.write(start_write, b"\0")
        os.close(opened.pop())
        os.waitpid(pid, 0)  # the first conmon only forks the real one
        answer = _read_line(sync_read)
    finally:
        for descriptor in inherited + opened:
            os.close(descriptor)
        os.chdir("/")
    if not answer:
        errors = (bundle / "conmon.err").read_text(errors="replace").strip()
        raise RuntimeFailed(f"conmon ended without starting the container: {errors or 'it gave no reason'}")
    started = msgspec.json.decode(answer, type=_Started)
    if started.data <= 0:
        raise RuntimeFailed(explain(started.message) or "the OCI runtime could not create the container")
    return started.data


def _read_line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(descriptor, 65536)
        if not part:
            break
        line += part
    return line
