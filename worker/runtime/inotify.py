"""File system notices on the asyncio loop, over one inotify descriptor (an account may have 128)."""

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from worker.runtime import syscalls

IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_TO, IN_Q_OVERFLOW = 0x2, 0x8, 0x80, 0x4000
_IN_IGNORED = 0x8000
_IN_MASK_ADD = 0x20000000
_HEADER = struct.Struct("iIII")

Notice = Callable[[int, str], None]
"""Called with the event's mask and the file's name; IN_Q_OVERFLOW with no name when events were lost."""

_remove_watch = ctypes.CDLL(None, use_errno=True).inotify_rm_watch


class Inotify:
    """Watches of directories; several of one directory share the kernel's."""

    def __init__(self) -> None:
        self._descriptor = syscalls.inotify_init()
        self._notices: dict[int, list[Notice]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Stop all watches."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._notices.clear()

    def watch(self, directory: Path, mask: int, notice: Notice) -> Callable[[], None]:
        """Call `notice` for events in the directory; returns what ends the watch."""
        number = syscalls.inotify_watch(self._descriptor, str(directory), mask | _IN_MASK_ADD)
        notices = self._notices.setdefault(number, [])
        notices.append(notice)

        def end() -> None:
            if notice in notices:
                notices.remove(notice)
            if not notices and self._notices.pop(number, None) is not None:
                _remove_watch(self._descriptor, number)

        return end

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            if mask & IN_Q_OVERFLOW:
                for notice in [item for notices in self._notices.values() for item in notices]:
                    notice(mask, "")
            elif mask & _IN_IGNORED:
                self._notices.pop(number, None)
            else:
                for notice in list(self._notices.get(number, ())):
                    notice(mask, name)
