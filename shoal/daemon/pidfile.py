"""One daemon at a time: locks that live as long as the daemon does."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from cluster.errors import Conflict


class PidFile:
    """Context manager. The lock, not the number, says whether a daemon runs, so a stale file is harmless."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> "PidFile":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(self._descriptor, 32).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise Conflict(
                f"another shoald (pid {pid}) holds {self._path}: stop it, or pass another --pidfile, "
                "--data-root and --exec-root"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


class DirectoryLock:
    """Context manager: one daemon for each data root and run directory, whatever its PID file."""

    def __init__(self, root: Path, flag: str) -> None:
        """`flag` is the one that names the directory, for the user."""
        self._root = root
        self._flag = flag
        self._descriptor = -1

    def __enter__(self) -> "DirectoryLock":
        self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise Conflict(
                f"another shoald uses {self._root}: stop it, or pass another {self._flag}"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
