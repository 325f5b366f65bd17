"""The files of one log: `container.log`, then `.1`, `.2`, … ever older; read forwards and backwards."""

import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from worker.logs.format import Line, parse_line

COMPRESSED = ".gz"
_BLOCK = 1 << 18
_HEAD = 64
_MAX_SCAN = 4096
"""How many lines before the wanted ones to look through for the beginnings of long lines."""


def log_files(path: Path) -> list[Path]:
    """All files of a log, the oldest first. Old ones may be compressed: `.1.gz`."""
    numbered: dict[int, Path] = {}
    for candidate in path.parent.glob(f"{path.name}.*"):
        suffix = candidate.name.removeprefix(f"{path.name}.")
        number = suffix.removesuffix(COMPRESSED)
        if number.isdigit() and (int(number) not in numbered or suffix.endswith(COMPRESSED)):
            numbered[int(number)] = candidate
    found = [numbered[number] for number in sorted(numbered, reverse=True)]
    return [*found, path] if path.exists() else found


def _open_plain(file: Path) -> int:
    """A descriptor of what the file holds; of a copy in a nameless file, when it is compressed."""
    if not file.name.endswith(COMPRESSED):
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    with gzip.open(file) as packed, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(packed, copy, _BLOCK)
        copy.flush()
        copy.seek(0)
        return os.dup(copy.fileno())


def _head(file: Path) -> bytes:
    """The first bytes of a compressed file: a time and a stream, with which no other file begins."""
    with gzip.open(file) as packed:
        return packed.read(_HEAD)


def lines_backwards(path: Path) -> Iterator[bytes]:
    """Whole lines of a file, the last first, without newlines."""
    with open(_open_plain(path), "rb", buffering=0) as file:
        position = file.seek(0, os.SEEK_END)
        rest = b""
        first = True
        while position > 0:
            size = min(_BLOCK, position)
            position -= size
            block = os.pread(file.fileno(), size, position) + rest
            lines = block.split(b"\n")
            rest = lines[0]
            complete = lines[1:]
            if first and complete:
                complete = complete[:-1]  # what follows the last newline: empty, or still being written
                first = False
            yield from reversed(complete)
        if rest and not first:
            yield rest


def last_lines(path: Path, count: int) -> list[Line]:
    """The lines of the file that make the last `count` entries, in order, over all files of the log."""
    if count == 0:
        return []
    found: list[Line] = []
    entries, extra = 0, 0
    closed: set[int] = set()  # streams whose older lines belong to entries that are not wanted
    for file in reversed(log_files(path)):
        for raw in lines_backwards(file):
            line = parse_line(raw)
            if line is None:
                continue
            if line.final or (not found and entries == 0):
                entries += 1
            if entries > count:
                extra += 1
                if line.final:
                    closed.add(line.stream)
                if len(closed) == 2 or extra > _MAX_SCAN:
                    return found[::-1]
            if line.stream not in closed:
                found.append(line)
    return found[::-1]


class Tail:
    """Reads the newest files of a log forwards, across rotations, as far as they are written."""

    def __init__(self, path: Path, file: Path | None = None, at_end: bool = False) -> None:
        self._path = path
        self._rest = b""
        self._descriptor = -1
        if file is not None:
            self._open(file)
            if at_end and self._descriptor >= 0:
                os.lseek(self._descriptor, 0, os.SEEK_END)

    def _open(self, file: Path) -> None:
        self._opened = file
        try:
            self._descriptor = _open_plain(file)
        except FileNotFoundError:
            self._descriptor = -1
        self._rest = b""

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self) -> list[bytes]:
        """The next whole lines; empty when there is nothing more at present."""
        while True:
            data = os.read(self._descriptor, _BLOCK) if self._descriptor >= 0 else b""
            if data:
                lines = (self._rest + data).split(b"\n")
                self._rest = lines.pop()
                if lines:
                    return lines
            elif not self._advance():
                return []

    def _advance(self) -> bool:
        """Go on to the next newer file; False when this is the newest."""
        files = log_files(self._path)
        if self._descriptor < 0:
            if not files:
                return False
            self._open(files[0])
            return self._descriptor >= 0
        ours = os.fstat(self._descriptor)
        following = files
        for index, file in enumerate(files):
            try:
                info = file.stat()
                same = (info.st_ino, info.st_dev) == (ours.st_ino, ours.st_dev)
                if file.name.endswith(COMPRESSED):
                    head = os.pread(self._descriptor, _HEAD, 0)
                    same = _head(file) == head if head else file == self._opened
            except FileNotFoundError:
                continue
            if same:
                following = files[index + 1 :]
        # The last read may have been before the file was given up: read it again before leaving it.
        if not following or self._more():
            return bool(following) and self._more()
        self.close()
        self._open(following[0])
        return self._descriptor >= 0

    def _more(self) -> bool:
        return os.fstat(self._descriptor).st_size > os.lseek(self._descriptor, 0, os.SEEK_CUR)
