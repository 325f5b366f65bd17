"""From the mounts that a user asks for to mount points on this node."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cluster.errors import InvalidArgument
from cluster.spec import BindOptions, Mount
from worker.images.model import Image
from worker.runtime.model import MountKind, MountPoint
from worker.runtime.mountinfo import mount_of
from worker.runtime.syscalls import release_at_least
from worker.volumes.store import VolumeStore

_PROPAGATIONS = {"", "private", "rprivate", "shared", "rshared", "slave", "rslave"}


def resolve_mounts(
    container: str,
    mounts: Sequence[Mount],
    image_volumes: Iterable[str],
    volumes: VolumeStore,
    images: Mapping[str, Image] | None = None,
) -> tuple[MountPoint, ...]:
    """Mount points for a container: what its spec asks for, an anonymous volume for each other image VOLUME.

    Named volumes are made when missing. On an error nothing stays noted as in use. `images` are those that
    mounts name, by the names that they use.
    """
    try:
        found = [
            _image(mount, images or {}) if mount.type == "image" else _resolve(container, mount, volumes)
            for mount in mounts
        ]
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
    raise InvalidArgument(f"mount type unknown: {mount.type!r} (there are bind, volume, tmpfs and image)")


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
    propagation = options.propagation if options else ""
    _check_propagation(source, propagation)
    return MountPoint(
        kind=MountKind.BIND,
        target=mount.target,
        source=source,
        read_only=mount.read_only,
        propagation=propagation,
        recursive=not (options and options.non_recursive),
        read_only_recursive=_recursive(mount),
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
    return MountPoint(
        kind=MountKind.VOLUME,
        target=mount.target,
        source=volume.path,
        volume_name=volume.name,
        driver=volume.driver,
        read_only=mount.read_only,
        copy_up=not (options and (options.no_copy or options.subpath)),
        subpath=options.subpath if options else "",
        options_of_volume=volume.options,
    )


def _recursive(mount: Mount) -> bool:
    """Whether a read-only mount is so all the way down: where the kernel can, or must by the options."""
    options = mount.bind_options or BindOptions()
    if options.read_only_non_recursive:
        return False
    can = release_at_least(5, 12)  # mount_setattr(2)
    if options.read_only_force_recursive and not can:
        raise InvalidArgument(
            'invalid mount config for type "bind": recursive read-only mounts need Linux 5.12 or newer'
        )
    return can


def _image(mount: Mount, images: Mapping[str, Image]) -> MountPoint:
    image = images.get(mount.source)
    if image is None:
        raise InvalidArgument(f'invalid mount config for type "image": no such image: {mount.source}')
    return MountPoint(
        kind=MountKind.IMAGE,
        target=mount.target,
        read_only=True,
        subpath=mount.image_options.subpath if mount.image_options else "",
        image_id=image.id,
        layers=image.layers,
    )


def _check_propagation(source: Path, propagation: str) -> None:
    """Mounts pass from and to the node only where the node's own mount lets them; Docker's words."""
    if not propagation or "private" in propagation:
        return
    mount = mount_of(source.resolve())
    if propagation in ("shared", "rshared") and not mount.shared:
        raise InvalidArgument(f"path {source} is mounted on {mount.point} but it is not a shared mount")
    if not mount.shared and not mount.slave:
        raise InvalidArgument(
            f"path {source} is mounted on {mount.point} but it is not a shared or slave mount"
        )


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
