"""A container's root file system: image layers and a writable layer on overlayfs, and safe access into it."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import InvalidArgument
from worker.runtime import syscalls

_PAGE = 4096


def mount_overlay(layers: Sequence[Path], upper: Path, work: Path, target: Path, label: str = "") -> None:
    """Mount `layers` (lowest first) below a writable `upper`; with an SELinux context, if given.

    overlayfs separates lower directories by colons; mount(2) takes one page of options, so many layers go
    through the new mount API, layer by layer where the kernel can (6.5: `lowerdir+`).
    """
    if not layers:
        raise InvalidArgument("a container needs at least one image layer")
    lower = ":".join(_escape(str(path)) for path in reversed(layers))
    options = f"lowerdir={lower},upperdir={_escape(str(upper))},workdir={_escape(str(work))}"
    options += f',context="{label}"' if label else ""
    if len(options.encode()) < _PAGE:
        syscalls.mount("overlay", str(target), "overlay", 0, options)
        return
    rest = [("upperdir", str(upper)), ("workdir", str(work))]
    rest += [("context", label)] if label else []
    try:
        single = [("lowerdir+", str(path)) for path in reversed(layers)]
        syscalls.mount_with_options("overlay", single + rest, str(target))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        syscalls.mount_with_options("overlay", [("lowerdir", lower), *rest], str(target))


def mount_read_only(layers: Sequence[Path], target: Path) -> None:
    """Mount `layers` (lowest first) with nothing to write to: overlayfs wants two directories at least."""
    if len(layers) == 1:
        syscalls.mount(str(layers[0]), str(target), "", syscalls.MS_BIND)
        syscalls.mount("", str(target), "", syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
        return
    lower = ":".join(_escape(str(path)) for path in reversed(layers))
    if len(lower.encode()) < _PAGE - 16:
        syscalls.mount("overlay", str(target), "overlay", syscalls.MS_RDONLY, f"lowerdir={lower}")
        return
    try:
        single = [("lowerdir+", str(path)) for path in reversed(layers)]
        syscalls.mount_with_options("overlay", single, str(target))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        syscalls.mount_with_options("overlay", [("lowerdir", lower)], str(target))


def _escape(path: str) -> str:
    """overlayfs reads `:`, `,` and backslash in its options specially."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


class Root:
    """Access to files of a container as the container sees them: no symlink leads out of its root."""

    def __init__(self, descriptor: int) -> None:
        self._root = descriptor

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a file; the caller closes the descriptor."""
        return syscalls.open_in_root(self._root, path, flags)

    def open_beneath(self, path: str, flags: int) -> int:
        """Open what is below the root; a symlink that leads out of it is OSError (EXDEV), not followed."""
        return syscalls.open_beneath(self._root, path, flags)

    def read_text(self, path: str, limit: int = 1 << 20) -> str:
        """A regular file's text up to `limit` bytes; empty when there is no such file."""
        try:
            descriptor = self.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            if error.errno == errno.ELOOP:
                return ""
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return ""
            return os.read(descriptor, limit).decode(errors="replace")
        finally:
            os.close(descriptor)

    def is_directory(self, path: str) -> bool:
        """True when there is a directory."""
        try:
            descriptor = self.open(path, os.O_PATH)
        except OSError:
            return False
        try:
            return stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def make_directories(self, path: str, uid: int = 0, gid: int = 0, mode: int = 0o755) -> None:
        """Create the directory and its parents; those created belong to uid:gid."""
        done = ""
        for part in [part for part in path.split("/") if part not in ("", ".")]:
            parent, done = done or "/", f"{done}/{part}"
            try:
                descriptor = self.open(done, os.O_PATH)
            except FileNotFoundError:
                self._make_directory(parent, part, uid, gid, mode)
                continue
            try:
                if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    raise InvalidArgument(f"cannot make directory {path}: {done} is not a directory")
            finally:
                os.close(descriptor)

    def _make_directory(self, parent: str, name: str, uid: int, gid: int, mode: int) -> None:
        if name == "..":
            return
        descriptor = self.open(parent, os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(name, mode, dir_fd=descriptor)
            os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
            change_mode(descriptor, name, mode)
        except FileExistsError:
            # A symlink to nowhere: nothing of ours to follow.
            raise InvalidArgument(
                f"cannot make directory {name} in {parent}: a dangling link is in its place"
            ) from None
        finally:
            os.close(descriptor)


@contextmanager
def opened(path: Path) -> Iterator[Root]:
    """The root file system at `path`."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Root(descriptor)
    finally:
        os.close(descriptor)


def change_mode(parent: int, name: str, mode: int) -> None:
    """chmod(2) without following a link that a running container has just put there: it could lead to a file
    of this machine."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def copy_up(root: Root, path: str, volume: Path) -> None:
    """Fill an empty volume from the image's directory at `path`, as Docker does at first use."""
    if any(volume.iterdir()):
        return
    try:
        descriptor = root.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        source = Path(f"/proc/self/fd/{descriptor}")
        _copy_attributes(source, volume)
        for entry in os.scandir(descriptor):
            _copy_tree(source / entry.name, volume / entry.name)
    finally:
        os.close(descriptor)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy one entry with owner, mode, times and extended attributes; never follows a symlink."""
    info = source.lstat()
    if stat.S_ISLNK(info.st_mode):
        target.symlink_to(source.readlink())
        os.lchown(target, info.st_uid, info.st_gid)
    elif stat.S_ISDIR(info.st_mode):
        target.mkdir()
        for entry in os.scandir(source):
            _copy_tree(Path(entry.path), target / entry.name)
        _copy_attributes(source, target)
    elif stat.S_ISREG(info.st_mode):
        shutil.copyfile(source, target, follow_symlinks=False)
        _copy_attributes(source, target)
    else:
        os.mknod(target, info.st_mode, info.st_rdev)
        _copy_attributes(source, target)


def _copy_attributes(source: Path, target: Path) -> None:
    info = source.stat()
    os.chown(target, info.st_uid, info.st_gid)
    shutil.copystat(source, target)


def remove_tree(path: Path) -> None:
    """Remove a directory; it may be gone already."""
    shutil.rmtree(path, onerror=_raise_unless_gone)


def _raise_unless_gone(_function: object, _path: object, info: tuple[type, BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
