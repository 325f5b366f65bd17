"""Word of containers' ends: inotify on the directory where conmon writes exit codes."""

import asyncio
import os
import struct
from collections.abc import Callable
from pathlib import Path

from worker.runtime import syscalls

_IN_MOVED_TO, _IN_CLOSE_WRITE, _IN_Q_OVERFLOW = 0x80, 0x8, 0x4000
_HEADER = struct.Struct("iIII")


class ExitWatch:
    """Calls `ended(id)` when conmon has written an exit file, and `overflow()` when events were lost."""

    def __init__(self, directory: Path, ended: Callable[[str], None], overflow: Callable[[], None]) -> None:
        self._ended, self._overflow = ended, overflow
        self._descriptor = syscalls.inotify_init()
        syscalls.inotify_watch(self._descriptor, str(directory), _IN_MOVED_TO | _IN_CLOSE_WRITE)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            _, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = data[offset : offset + length].rstrip(b"\0").decode()
            offset += length
            if mask & _IN_Q_OVERFLOW:
                self._overflow()
            elif "." not in name:  # conmon writes ID.random and renames it
                self._ended(name)


def read_exit_code(path: Path) -> int | None:
    """The exit code in an exit file; None when there is none yet."""
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    return int(text) if text else None
