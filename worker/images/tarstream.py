"""Read a tar from an untrusted stream in one pass and bounded memory: ustar, pax and GNU long names.

The standard library's tarfile reads extension headers of any size into memory; this reader bounds them.
Format: POSIX.1-2008 pax; GNU tar manual, "Basic Tar Format". Sparse files are refused.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from worker.images.errors import InvalidImage

BLOCK = 512
_MAX_EXTENSION = 1 << 20
_MAX_NAME = 4096
_MAX_ID = (1 << 32) - 1  # itself means "as it is" to chown(2)
_MAX_TIME = 1 << 63
"""Nanoseconds since the epoch, some 292 years; a time beyond it is this."""
_COPY = 1 << 20
_ZERO_BLOCK = bytes(BLOCK)
_KEYWORDS = frozenset({"path", "linkpath", "size", "uid", "gid", "mtime"})
_XATTR = "SCHILY.xattr."
_SPARSE = "GNU.sparse."
_DECIMAL = re.compile(r"(-?)([0-9]{1,20})(?:\.([0-9]{0,30}))?\Z")


class Kind(Enum):
    """What an entry is, by its type flag."""

    FILE = "0"
    HARD_LINK = "1"
    SYMLINK = "2"
    CHAR_DEVICE = "3"
    BLOCK_DEVICE = "4"
    DIRECTORY = "5"
    FIFO = "6"


@dataclass(slots=True)
class Entry:
    """One member. `mtime` in ns since the epoch; `size` is that of the content that follows."""

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: str
    device: tuple[int, int]
    xattrs: dict[str, bytes] = field(default_factory=dict)


class TarReader:
    """Entries in order; the content of each is read, or skipped, before the next one.

    `read` gives up to n bytes, and no byte only at the end. Raises InvalidImage for anything malformed.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        shared: dict[str, bytes] = {}
        while True:
            own: dict[str, bytes] = {}
            extended = sum(len(key) + len(value) for key, value in shared.items())
            while True:
                self._skip(self._left + self._padding)
                self._left = self._padding = 0
                header = self._block()
                if header is None:
                    return
                flag = chr(header[156])
                if flag not in "xgLK":
                    break
                content = self._extension(header)
                extended += len(content)
                if extended > _MAX_EXTENSION:
                    raise InvalidImage(f"tar extension headers of an entry exceed {_MAX_EXTENSION} bytes")
                if flag == "g":
                    shared |= _pax(content)
                elif flag == "x":
                    own |= _pax(content)
                else:
                    own["path" if flag == "L" else "linkpath"] = content.partition(b"\0")[0]
            entry = _entry(header, shared | own)
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            yield entry

    def content(self) -> Iterator[bytes]:
        """The current entry's content in pieces."""
        while self._left:
            chunk = self._read(min(self._left, _COPY))
            if not chunk:
                raise InvalidImage("tar ends in the middle of a file")
            self._left -= len(chunk)
            yield chunk

    def _block(self) -> bytes | None:
        """The next header; None at the end: a zero block, or nothing more."""
        block = self._exactly(BLOCK, at_end=b"")
        if not block or block == _ZERO_BLOCK:
            return None
        if sum(block) - sum(block[148:156]) + 8 * ord(" ") != _number(block[148:156], "checksum"):
            raise InvalidImage("tar header has a wrong checksum")
        return block

    def _extension(self, header: bytes) -> bytes:
        size = _number(header[124:136], "size")
        if not 0 <= size <= _MAX_EXTENSION:
            raise InvalidImage(f"tar extension header of {size} bytes is too large")
        content = self._exactly(size)
        self._skip(-size % BLOCK)
        return content

    def _exactly(self, size: int, at_end: bytes | None = None) -> bytes:
        content = self._read(size)
        if not content and at_end is not None:
            return at_end
        while len(content) < size:
            more = self._read(size - len(content))
            if not more:
                raise InvalidImage("tar is cut short")
            content += more
        return content

    def _skip(self, size: int) -> None:
        while size:
            chunk = self._read(min(size, _COPY))
            if not chunk:
                raise InvalidImage("tar is cut short")
            size -= len(chunk)


def _entry(header: bytes, extra: dict[str, bytes]) -> Entry:
    if any(key.startswith(_SPARSE) for key in extra):
        raise InvalidImage("tar holds a sparse file, which image layers must not")
    flag = chr(header[156])
    name = _text(extra["path"]) if "path" in extra else _ustar_name(header)
    try:
        kind = Kind("0" if flag in "\x007" else flag)
    except ValueError:
        raise InvalidImage(f"tar entry {name[:200]!r} is of unknown type {flag!r}") from None
    if kind is Kind.FILE and name.endswith("/"):
        kind = Kind.DIRECTORY
    size = _decimal(extra["size"], "size") if "size" in extra else _number(header[124:136], "size")
    if size < 0:
        raise InvalidImage(f"tar entry {name[:200]!r} has a negative size")
    entry = Entry(
        name=name,
        kind=kind,
        mode=_number(header[100:108], "mode") & 0o7777,
        uid=_decimal(extra["uid"], "uid") if "uid" in extra else _number(header[108:116], "uid"),
        gid=_decimal(extra["gid"], "gid") if "gid" in extra else _number(header[116:124], "gid"),
        size=size if kind is Kind.FILE else 0,
        mtime=_time(extra["mtime"])
        if "mtime" in extra
        else _number(header[136:148], "mtime") * 1_000_000_000,
        link=_text(extra["linkpath"]) if "linkpath" in extra else _text(_until_zero(header[157:257])),
        device=(
            (_number(header[329:337], "device"), _number(header[337:345], "device"))
            if kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)
            else (0, 0)
        ),
        xattrs={key.removeprefix(_XATTR): value for key, value in extra.items() if key.startswith(_XATTR)},
    )
    if not (0 <= entry.uid < _MAX_ID and 0 <= entry.gid < _MAX_ID):
        raise InvalidImage(f"tar entry {name[:200]!r} has an owner out of range")
    entry.mtime = max(-_MAX_TIME, min(entry.mtime, _MAX_TIME))
    if any("\0" in key for key in entry.xattrs):
        raise InvalidImage(f"tar entry {name[:200]!r} has an attribute with an impossible name")
    if max(len(entry.name), len(entry.link)) > _MAX_NAME or "\0" in entry.name + entry.link:
        raise InvalidImage(f"tar entry {name[:200]!r} has an impossible name")
    return entry


def _ustar_name(header: bytes) -> str:
    name = _until_zero(header[:100])
    prefix = _until_zero(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _pax(content: bytes) -> dict[str, bytes]:
    """Records `LENGTH KEY=VALUE\\n`; an empty value deletes what a global header said."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(content) and content[position] != 0:
        space = content.find(b" ", position, position + 8)
        if space < 0 or not content[position:space].isdigit():
            raise InvalidImage("tar has a malformed pax header")
        end = position + int(content[position:space])
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if end > len(content) or end <= space + 1 or not equals or content[end - 1 : end] != b"\n":
            raise InvalidImage("tar has a malformed pax header")
        name = _text(key)
        if name in _KEYWORDS or name.startswith((_XATTR, _SPARSE)):
            records[name] = value
        position = end
    return records


def _number(raw: bytes, what: str) -> int:
    """An octal field, or GNU's base-256 one, which may be negative."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big")
        bits = 8 * len(raw)
        return value - (1 << bits) if raw[0] & 0x40 else value - (1 << (bits - 1))
    text = raw.replace(b"\0", b" ").strip()
    if not text:
        return 0
    try:
        return int(text.split()[0], 8)
    except ValueError:
        raise InvalidImage(f"tar header has a malformed {what}") from None


def _decimal(raw: bytes, what: str) -> int:
    if not raw.isdigit() or len(raw) > 20:
        raise InvalidImage(f"tar has a malformed pax {what}")
    return int(raw)


def _time(raw: bytes) -> int:
    match = _DECIMAL.match(_text(raw))
    if match is None:
        raise InvalidImage("tar has a malformed pax mtime")
    value = int(match[2]) * 1_000_000_000 + int((match[3] or "")[:9].ljust(9, "0"))
    return -value if match[1] else value


def _until_zero(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
