"""What must be mounted on the node before a container's own mounts: images, and directories inside volumes.

Each becomes a mount below the bundle's `mounts/`, which the container then binds. A directory inside a volume
is opened beneath the volume's root and mounted by its descriptor: no symlink that a container leaves there,
and no exchange of it at the last moment, leads out of the volume.
"""

import errno
import os
import stat
from pathlib import Path

from msgspec.structs import replace

from cluster.errors import InvalidArgument
from worker.runtime import rootfs, syscalls
from worker.runtime.directory import ContainerPaths
from worker.runtime.model import ContainerConfig, MountKind, MountPoint
from worker.runtime.mountinfo import mount_of
from worker.volumes.filesystems import mount_volume

_KEPT = frozenset({"ro", "nosuid", "nodev", "noexec"})
"""What of a mount on the node holds in the container, too. crun forgets it, unless it is told."""


def mount_volumes(config: ContainerConfig) -> None:
    """Mount the file systems behind the container's volumes. Raises VolumeUnavailable."""
    for point in config.mounts:
        if point.options_of_volume and point.source is not None:
            mount_volume(point.volume_name, point.source, point.options_of_volume)


def prepare(config: ContainerConfig, paths: ContainerPaths) -> tuple[MountPoint, ...]:
    """The container's mounts with sources as they are to be bound. `undo` takes back what this did."""
    return tuple(_prepared(point, paths.mounts / str(number)) for number, point in enumerate(config.mounts))


def undo(paths: ContainerPaths) -> None:
    """Unmount; raises OSError rather than leave a mount that a removal of the bundle would follow."""
    try:
        places = list(paths.mounts.iterdir())
    except FileNotFoundError:
        return
    for place in places:
        while syscalls.unmount(str(place)):
            pass
        place.rmdir() if place.is_dir() else place.unlink()  # both refuse a mount point
    paths.mounts.rmdir()


def _prepared(point: MountPoint, place: Path) -> MountPoint:
    if point.kind is MountKind.TMPFS:
        return point
    if point.kind is MountKind.IMAGE:
        return _image(point, place)
    source = point.source
    if source is None:
        return point
    kept = tuple(each for each in mount_of(source).options if each in _KEPT)
    if point.subpath:
        source = _bind_below(source, point.subpath, place, "volume")
    return replace(point, source=source, subpath="", options=kept)


def _image(point: MountPoint, place: Path) -> MountPoint:
    """The image's files, read-only."""
    _make(place, directory=True)
    rootfs.mount_read_only(point.layers, place)
    if not point.subpath:
        return replace(point, source=place)
    below = _bind_below(place, point.subpath, place.with_name(f"{place.name}.sub"), "image")
    return replace(point, source=below, subpath="")


def _bind_below(base: Path, subpath: str, place: Path, what: str) -> Path:
    with rootfs.opened(base) as root:
        try:
            descriptor = root.open_beneath(subpath, os.O_PATH)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise InvalidArgument(f"subpath {subpath!r} leads out of the {what}") from error
            raise InvalidArgument(
                f"cannot access path {base / subpath}: {os.strerror(error.errno or 0).lower()}"
            ) from error
        try:
            _make(place, directory=stat.S_ISDIR(os.fstat(descriptor).st_mode))
            syscalls.mount(f"/proc/self/fd/{descriptor}", str(place), "", syscalls.MS_BIND | syscalls.MS_REC)
        finally:
            os.close(descriptor)
    return place


def _make(place: Path, *, directory: bool) -> None:
    place.parent.mkdir(mode=0o711, exist_ok=True)
    if directory:
        place.mkdir(exist_ok=True)
    else:
        place.touch()
