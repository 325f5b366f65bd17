"""A container's files as it sees them, for the daemon: also those of a container that does not run."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from cluster.errors import InvalidArgument
from worker.runtime import mounting, rootfs, syscalls
from worker.runtime.directory import Layout
from worker.runtime.model import ContainerConfig, ContainerState, MountKind, MountPoint

_numbers = count()


@contextmanager
def opened_root(
    layout: Layout, config: ContainerConfig, state: ContainerState, *, mounts: bool
) -> Iterator[rootfs.Root]:
    """The root file system, with what is mounted in it unless `mounts` is False. It blocks.

    Nobody may start the container meanwhile.
    """
    if state.running:
        path = Path(f"/proc/{state.pid}/root") if mounts else layout.of(config.id).rootfs
        with rootfs.opened(path) as root:
            yield root
        return
    paths = layout.of(config.id)
    target = _views(layout) / f"{config.id}.{next(_numbers)}"
    target.mkdir(mode=0o700, parents=True)
    try:
        rootfs.mount_overlay(config.layers, paths.home / "upper", paths.home / "work", target)
        try:
            with rootfs.opened(target) as root:
                if mounts:
                    _bind_mounts(config, root)
                yield root
        finally:
            syscalls.unmount(str(target))  # with all that is mounted in it
    finally:
        target.rmdir()


def clear_views(layout: Layout) -> None:
    """Remove what a daemon left that was killed."""
    views = _views(layout)
    if not views.exists():
        return
    for target in views.iterdir():
        while syscalls.unmount(str(target)):
            pass
        target.rmdir()


def _views(layout: Layout) -> Path:
    return layout.run / "views"


def _bind_mounts(config: ContainerConfig, root: rootfs.Root) -> None:
    """Mount volumes and directories of the host where the container has them, as far as the places exist."""
    mounting.mount_volumes(config)
    for point in sorted(config.mounts, key=lambda item: item.target.count("/")):
        if point.kind not in (MountKind.BIND, MountKind.VOLUME) or point.source is None:
            continue
        source = _source(point.source, point.subpath)
        try:
            _bind(source, root, point)
        finally:
            os.close(source)


def _source(path: Path, subpath: str) -> int:
    """What is mounted, open: a directory or file of the host, or what is in a volume at `subpath`."""
    try:
        if not subpath:
            return os.open(path, os.O_PATH | os.O_CLOEXEC)
        with rootfs.opened(path) as volume:
            return volume.open_beneath(subpath, os.O_PATH)
    except OSError as error:
        raise InvalidArgument(f"cannot access path {path / subpath}: {error.strerror}") from error


def _bind(source: int, root: rootfs.Root, point: MountPoint) -> None:
    try:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            root.make_directories(point.target)  # as its start would
        place = root.open(point.target, os.O_PATH)
    except (OSError, InvalidArgument):
        return
    try:
        syscalls.mount(f"/proc/self/fd/{source}", f"/proc/self/fd/{place}", "", syscalls.MS_BIND)
    finally:
        os.close(place)
    if point.read_only:
        mounted = root.open(point.target, os.O_PATH)
        try:
            flags = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY
            syscalls.mount("", f"/proc/self/fd/{mounted}", "", flags)
        finally:
            os.close(mounted)
