"""An honest power loss: of a directory tree, what was synced stays, and nothing else.

Processes run with `durable.c` preloaded, which keeps copies of what they sync. `lose_power` puts a tree
together from these copies alone; it is for the time when no process uses the tree. So the page cache of the
machine, which outlives a playground host, counts for nothing.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHADOW = ".durable"
_SOURCE = Path(__file__).with_name("durable.c")
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW = -100, 0x100
_STATX_INO, _STATX_BTIME = 0x100, 0x800
_libc = ctypes.CDLL(None, use_errno=True)


def build(directory: Path) -> Path:
    """Compile the library; its path."""
    library = directory / "durable.so"
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(_SOURCE), "-ldl"], check=True)
    return library


def environment(library: Path, roots: Sequence[Path]) -> dict[str, str]:
    """What a process needs in its environment."""
    return {"LD_PRELOAD": str(library), "DURABLE_ROOTS": ":".join(map(str, roots))}


@dataclass
class Entry:
    """A name in a directory, as it was when the directory was synced."""

    kind: str
    id: str
    mode: int
    uid: int
    gid: int
    name: str
    target: str

    def line(self) -> str:
        """As durable.c writes it."""
        return f"{self.kind}\t{self.id}\t{self.mode:o}\t{self.uid}\t{self.gid}\t{self.name}\t{self.target}\n"


@dataclass
class _Durable:
    files: dict[str, bytes] = field(default_factory=dict)
    directories: dict[str, list[Entry]] = field(default_factory=dict)


def lose_power(root: Path) -> None:
    """Replace what is in `root` by what of it would be there after a power loss; all of that is durable then.

    Raises:
        RuntimeError: nothing below was ever synced by a process with the library, so nothing is known.
    """
    durable = _read(root)
    if not durable.directories:
        raise RuntimeError(f"nothing in {root} was synced through the library: was it loaded?")
    own = identity(root)
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    _rebuild(root, own, durable)
    _seed(root)


def _read(root: Path) -> _Durable:
    durable = _Durable()
    for directory, _, _ in os.walk(root):
        if not directory.endswith(f"/{SHADOW}"):
            continue
        for path in Path(directory).iterdir():
            if path.name.startswith("f-"):
                durable.files[path.name[2:]] = path.read_bytes()
            elif path.name.count(".") == 0:  # else a listing that was being written
                durable.directories[path.name[2:]] = list(_entries(path.read_text()))
    return durable


def _entries(text: str) -> Iterator[Entry]:
    for line in text.splitlines():
        kind, id, mode, uid, gid, name, target = line.split("\t")
        yield Entry(kind, id, int(mode, 8), int(uid), int(gid), name, target)


def _rebuild(directory: Path, id: str, durable: _Durable) -> None:
    for entry in durable.directories.get(id, ()):
        path = directory / entry.name
        if entry.kind == "l":
            path.symlink_to(entry.target)
            continue
        if entry.kind == "d":
            path.mkdir()
            _rebuild(path, entry.id, durable)
        else:
            path.write_bytes(durable.files.get(entry.id, b""))
        os.chown(path, entry.uid, entry.gid)
        path.chmod(entry.mode)


def _seed(directory: Path) -> None:
    """Everything that is there now is durable."""
    shadow = directory / SHADOW
    entries = []
    for path in list(directory.iterdir()):
        id, status = identity(path), path.lstat()
        kind = "l" if path.is_symlink() else "d" if path.is_dir() else "f"
        target = str(path.readlink()) if kind == "l" else ""
        entries.append(
            Entry(kind, id, status.st_mode & 0o7777, status.st_uid, status.st_gid, path.name, target)
        )
        if kind == "d":
            _seed(path)
    shadow.mkdir()
    shadow.chmod(0o777)  # whoever may write here next
    for entry in entries:
        if entry.kind == "f":
            copy = shadow / f"f-{entry.id}"
            shutil.copyfile(directory / entry.name, copy)
            copy.chmod(0o666)
    listing = shadow / f"d-{identity(directory)}"
    listing.write_text("".join(entry.line() for entry in entries))
    listing.chmod(0o666)


class _Statx(ctypes.Structure):
    """The part of struct statx (statx(2)) that is read here; 256 bytes in all."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("_before", ctypes.c_uint8 * 28),
        ("inode", ctypes.c_uint64),
        ("_between", ctypes.c_uint8 * 40),
        ("birth_seconds", ctypes.c_int64),
        ("birth_nanoseconds", ctypes.c_uint32),
        ("_rest", ctypes.c_uint8 * 164),
    )


def identity(path: Path) -> str:
    """A file's inode and birth, as durable.c writes them. Raises OSError where births are not kept."""
    found = _Statx()
    flags, mask = _AT_SYMLINK_NOFOLLOW, _STATX_INO | _STATX_BTIME
    if _libc.statx(_AT_FDCWD, os.fsencode(path), flags, mask, ctypes.byref(found)) != 0:
        raise OSError(ctypes.get_errno(), f"statx {path}")
    if not found.mask & _STATX_BTIME:
        raise OSError(f"the file system of {path} does not keep when a file was made")
    return f"{found.inode}-{found.birth_seconds}-{found.birth_nanoseconds}"
