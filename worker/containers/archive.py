"""Files into and out of containers (`docker cp`, `docker export`): tar streams, and what a path is. Blocks.

Paths are resolved inside the container's root: no symbolic link there leads to a file of this machine.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from cluster.errors import InvalidArgument, NotFound
from worker.images.rootdir import split
from worker.images.tarstream import Entry, Kind, TarReader
from worker.runtime.rootfs import Root, change_mode

Write = Callable[[bytes], object]
Seen = dict[tuple[int, int], str]
"""Files with several names: device and inode → the first of them."""
_CHUNK = 256 << 10
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


@dataclass(frozen=True)
class PathStat:
    """What a path is; `mode` in the numbers of Go's os.FileMode, `mtime` in ns since the epoch."""

    name: str
    size: int
    mode: int
    mtime: int
    link: str


def path_stat(root: Root, path: str) -> PathStat:
    """What is at a path; a symbolic link itself unless the path ends in a slash. NotFound."""
    with _located(root, path) as (parent, name):
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        link = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(info.st_mode) else ""
    base = PurePosixPath(path).name or "/"
    if link:
        link = os.path.normpath(os.path.join("/", os.path.dirname(path), link))
    return PathStat(base, info.st_size, _go_mode(info.st_mode), info.st_mtime_ns, link)


def write_tar(root: Root, path: str, write: Write) -> None:
    """What is at a path, as dockerd names it: below its own name, `.` for a path that ends in `/.`."""
    with _located(root, path) as (parent, name):
        base = "." if path.endswith("/.") else PurePosixPath(path).name or "/"
        _add(parent, name, base, write, {})
    write(bytes(2 * tarfile.BLOCKSIZE))


def write_tree(root: Root, write: Write) -> None:
    """The whole root, without a name of its own."""
    top = root.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        seen: Seen = {}
        for name in sorted(os.listdir(top)):
            _add(top, name, name, write, seen)
    finally:
        os.close(top)
    write(bytes(2 * tarfile.BLOCKSIZE))


@contextmanager
def _located(root: Root, path: str) -> Iterator[tuple[int, str]]:
    """The directory that holds a path's last component, open, and that component."""
    follow = path.endswith(("/", "/.")) or not path.strip("/")
    clean = os.path.normpath("/" + path)
    try:
        if follow:
            parent, name = root.open(clean, os.O_RDONLY | os.O_DIRECTORY), "."
        else:
            parent = root.open(os.path.dirname(clean), os.O_RDONLY | os.O_DIRECTORY)
            name = os.path.basename(clean)
        try:
            yield parent, name
        finally:
            os.close(parent)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"Could not find the file {path} in container") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidArgument(f"too many symbolic links in {path}") from error
        raise


def _add(parent: int, name: str, path: str, write: Write, seen: Seen) -> None:
    try:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return  # it went while we were here
    member = _member(path, info)
    if member is None:
        return
    if member.issym():
        member.linkname = os.readlink(name, dir_fd=parent)
    if member.isreg() and info.st_nlink > 1:
        first = seen.setdefault((info.st_dev, info.st_ino), path)
        if first != path:  # another name of a file that is in the archive already
            member.type, member.linkname, member.size = tarfile.LNKTYPE, first, 0
    if not member.isreg():
        write(_header(member))
    if member.isreg():
        _add_file(parent, name, member, write)
    elif member.isdir():
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = os.open(name, flags, dir_fd=parent)
        try:
            for each in sorted(os.listdir(directory)):
                _add(directory, each, f"{path.rstrip('/')}/{each}", write, seen)
        finally:
            os.close(directory)


def _add_file(parent: int, name: str, member: tarfile.TarInfo, write: Write) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(name, flags, dir_fd=parent)
    try:
        write(_header(member))
        left = member.size
        while left:
            # A file that shrinks meanwhile is filled up: its length is said already.
            data = os.read(file, min(left, _CHUNK)) or bytes(min(left, _CHUNK))
            write(data)
            left -= len(data)
        write(bytes(-member.size % tarfile.BLOCKSIZE))
    finally:
        os.close(file)


def _header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _member(path: str, info: os.stat_result) -> tarfile.TarInfo | None:
    """Built by hand: tarfile would look owners' names up on this machine."""
    kinds = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }
    kind = kinds.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return None  # a socket
    member = tarfile.TarInfo(path if kind != tarfile.DIRTYPE else f"{path.rstrip('/')}/")
    member.type = kind
    member.mode = stat.S_IMODE(info.st_mode)
    member.uid, member.gid, member.mtime = info.st_uid, info.st_gid, int(info.st_mtime)
    if kind == tarfile.REGTYPE:
        member.size = info.st_size
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        member.devmajor, member.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    return member


def _go_mode(mode: int) -> int:
    found = mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    for ours, theirs in _GO_BITS:
        if mode & ours:
            found |= theirs
    return found


@dataclass(frozen=True)
class Extraction:
    """How a tar is put into a directory. `owner` is who gets all of it; None: as the tar says."""

    keep_kinds: bool = False  # no directory in place of another thing, nor the other way round
    owner: tuple[int, int] | None = None


def extract(root: Root, path: str, read: Callable[[int], bytes], how: Extraction) -> None:
    """Put a tar's content into an existing directory. NotFound, InvalidArgument."""
    try:
        top = root.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise NotFound(f"Could not find the file {path} in container") from error
    except NotADirectoryError as error:
        raise InvalidArgument("extraction point is not a directory") from error
    os.close(top)
    reader = TarReader(read)
    times: list[tuple[str, int]] = []
    for entry in reader:
        parts = split(entry.name)
        if not parts:
            continue
        where = "/".join((path.rstrip("/"), *parts[:-1])) or "/"
        try:
            _put(root, path, where, parts[-1], entry, reader, how)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            raise InvalidArgument(f"can't write {entry.name}: {error.strerror}") from error
        if entry.kind is Kind.DIRECTORY:
            times.append((f"{where}/{parts[-1]}", entry.mtime))
    while read(_CHUNK):
        pass  # what follows the end mark
    for name, mtime in reversed(times):
        directory = root.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.utime(directory, ns=(mtime, mtime))
        finally:
            os.close(directory)


def _put(
    root: Root, top: str, where: str, name: str, entry: Entry, reader: TarReader, how: Extraction
) -> None:
    root.make_directories(where)
    parent = root.open(where, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _make_way(parent, name, entry, how):
            match entry.kind:
                case Kind.DIRECTORY:
                    os.mkdir(name, 0o700, dir_fd=parent)
                case Kind.FILE:
                    _put_file(parent, name, reader)
                case Kind.SYMLINK:
                    os.symlink(entry.link, name, dir_fd=parent)
                case Kind.HARD_LINK:
                    _put_link(root, top, parent, name, entry)
                    return
                case Kind.FIFO:
                    os.mkfifo(name, 0o600, dir_fd=parent)
                case Kind.CHAR_DEVICE | Kind.BLOCK_DEVICE:
                    kind = stat.S_IFCHR if entry.kind is Kind.CHAR_DEVICE else stat.S_IFBLK
                    os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=parent)
        uid, gid = how.owner or (entry.uid, entry.gid)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind is not Kind.SYMLINK:
            change_mode(parent, name, entry.mode)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _make_way(parent: int, name: str, entry: Entry, how: Extraction) -> bool:
    """Remove what is in the way; True for a directory that stays."""
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    is_directory = stat.S_ISDIR(there)
    if is_directory and entry.kind is Kind.DIRECTORY:
        return True
    if how.keep_kinds and is_directory != (entry.kind is Kind.DIRECTORY):
        words = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
        raise InvalidArgument(f'cannot overwrite {words[0]} "{entry.name}" with {words[1]}')
    if is_directory:
        os.rmdir(name, dir_fd=parent)  # only an empty one: nobody loses a tree by a mistake
    else:
        os.unlink(name, dir_fd=parent)
    return False


def _put_file(parent: int, name: str, reader: TarReader) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        for chunk in reader.content():
            view = memoryview(chunk)
            while view:
                view = view[os.write(file, view) :]
    finally:
        os.close(file)


def _put_link(root: Root, top: str, parent: int, name: str, entry: Entry) -> None:
    target = split(entry.link)
    if not target:
        raise InvalidArgument(f"{entry.name} is a hard link to nothing")
    above = root.open("/".join((top.rstrip("/"), *target[:-1])) or "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(target[-1], name, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(above)
