"""From the mounts that a user asks for to mount points on this node."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from cluster.errors import InvalidArgument
from cluster.spec import Mount
from worker.runtime.model import MountKind, MountPoint
from worker.volumes.store import VolumeStore

_PROPAGATIONS = {"", "private", "rprivate", "shared", "rshared", "slave", "rslave"}


def resolve_mounts(
    container: str, mounts: Sequence[Mount], image_volumes: Iterable[str], volumes: VolumeStore
) -> tuple[MountPoint, ...]:
    """Mount points for a container: what its spec asks for, an anonymous volume for each other image VOLUME.

    Named volumes are made when missing. On an error nothing stays noted as in use.
    """
    try:
        found = [_resolve(container, mount, volumes) for mount in mounts]
        taken = {_normal(point.target) for point in found}
        for target in sorted(set(image_volumes)):
            if _normal(target) not in taken:
                found.append(_resolve(container, Mount(type="volume", target=target), volumes))
    except BaseException:
        volumes.release(container, remove_anonymous=True)
        raise
    return tuple(found)


def _normal(target: str) -> str:
    return str(PurePosixPath(target))


def _resolve(container: str, mount: Mount, volumes: VolumeStore) -> MountPoint:
    if not mount.target.startswith("/"):
        raise InvalidArgument(f"invalid mount path: {mount.target!r} mount path must be absolute")
    match mount.type:
        case "bind":
            return _bind(mount)
        case "volume" | "":
            return _volume(container, mount, volumes)
        case "tmpfs":
            return _tmpfs(mount)
    raise InvalidArgument(f"mount type unknown: {mount.type!r} (bind, volume and tmpfs are supported)")


def _bind(mount: Mount) -> MountPoint:
    options = mount.bind_options
    if not mount.source:
        raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
    source = Path(mount.source)
    if not source.is_absolute():
        raise InvalidArgument(f"invalid mount path: {mount.source!r} mount path must be absolute")
    if options is not None and options.propagation not in _PROPAGATIONS:
        raise InvalidArgument(
            f'invalid mount config for type "bind": invalid propagation: {options.propagation}'
        )
    if not source.exists():
        if options is None or not options.create_mountpoint:
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
            )
        source.mkdir(parents=True)
    return MountPoint(
        kind=MountKind.BIND,
        target=mount.target,
        source=source,
        read_only=mount.read_only,
        propagation=options.propagation if options else "",
        recursive=not (options and options.non_recursive),
        read_only_recursive=not (options and options.read_only_non_recursive),
    )


def _volume(container: str, mount: Mount, volumes: VolumeStore) -> MountPoint:
    options = mount.volume_options
    driver = options.driver_config if options else None
    volume = volumes.create(
        mount.source,
        driver=driver.name if driver else "",
        labels=options.labels if options else None,
        options=driver.options if driver else None,
    )
    volumes.acquire(volume.name, container)
    source = volume.path
    if options and options.subpath:
        source = _subpath(volume.path, options.subpath)
    return MountPoint(
        kind=MountKind.VOLUME,
        target=mount.target,
        source=source,
        volume_name=volume.name,
        driver=volume.driver,
        read_only=mount.read_only,
        copy_up=not (options and (options.no_copy or options.subpath)),
    )


def _subpath(base: Path, subpath: str) -> Path:
    """A directory inside a volume; what leads out of it by `..` or symlinks is refused."""
    found = (base / subpath).resolve()
    if not found.is_relative_to(base.resolve()) or PurePosixPath(subpath).is_absolute():
        raise InvalidArgument(f"subpath {subpath!r} leads out of the volume")
    if not found.exists():
        raise InvalidArgument(f"cannot access path {base / subpath}: no such file or directory")
    return found


def _tmpfs(mount: Mount) -> MountPoint:
    if mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must be empty')
    options = mount.tmpfs_options
    extra = tuple("=".join(pair) for pair in (options.options or [])) if options else ()
    return MountPoint(
        kind=MountKind.TMPFS,
        target=mount.target,
        read_only=mount.read_only,
        size_bytes=options.size_bytes if options else 0,
        mode=options.mode if options else 0,
        options=extra,
    )
