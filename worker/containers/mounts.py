"""The mounts of a standalone container: `-v`, `--mount`, `--tmpfs`, `--volumes-from`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from msgspec.structs import replace

from cluster.errors import InvalidArgument
from cluster.log_options import parse_size
from cluster.spec import BindOptions, DriverConfig, Mount, TmpfsOptions, VolumeOptions
from worker.containers.request import HostConfig, Settings
from worker.runtime.model import ContainerConfig, MountKind, MountPoint
from worker.volumes.mounts import resolve_mounts
from worker.volumes.store import VolumeStore

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}


def wanted_mounts(host: HostConfig) -> list[Mount]:
    """The mounts that a user names. Raises InvalidArgument."""
    found = [_bind(text, host.volume_driver) for text in host.binds or ()]
    found += host.mounts or ()
    found += [_tmpfs(target, options) for target, options in (host.tmpfs or {}).items()]
    return found


def resolve(
    identifier: str,
    settings: Settings,
    host: HostConfig,
    volumes: VolumeStore,
    find: Callable[[str], ContainerConfig],
) -> tuple[MountPoint, ...]:
    """All mount points of a container; its volumes are made and noted as used by it."""
    own = wanted_mounts(host)
    taken = {_normal(mount.target) for mount in own}
    lent = [point for point in _lent(host.volumes_from or (), find) if _normal(point.target) not in taken]
    taken |= {_normal(point.target) for point in lent}
    anonymous = [target for target in settings.volumes or {} if _normal(target) not in taken]
    points = resolve_mounts(identifier, own, anonymous, volumes)
    for point in lent:
        if point.volume_name:
            volumes.acquire(point.volume_name, identifier)
    return points + tuple(lent)


def _lent(names: Iterable[str], find: Callable[[str], ContainerConfig]) -> list[MountPoint]:
    """The mounts of other containers, the last of a target winning."""
    found: dict[str, MountPoint] = {}
    for text in names:
        name, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidArgument(f"invalid volume specification: '{text}'")
        for point in find(name).mounts:
            if point.kind is not MountKind.TMPFS:
                read_only = point.read_only or mode == "ro"
                found[_normal(point.target)] = replace(point, read_only=read_only, copy_up=False)
    return list(found.values())


def _bind(text: str, driver: str) -> Mount:
    """`[SOURCE:]TARGET[:OPTIONS]`: an absolute source is a path of the host, any other a volume."""
    parts = text.split(":")
    if len(parts) == 1:
        parts = ["", *parts]
    if len(parts) > 3 or not parts[1]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, target = parts[0], parts[1]
    options = _options(text, parts[2] if len(parts) == 3 else "")
    if not target.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"volume\": "
            f"invalid mount path: '{target}' mount path must be absolute"
        )
    read_only = "ro" in options
    propagation = next((option for option in options if option in _PROPAGATIONS), "")
    if source.startswith("/"):
        bind = BindOptions(propagation=propagation, create_mountpoint=True)
        return Mount(type="bind", source=source, target=target, read_only=read_only, bind_options=bind)
    volume = VolumeOptions(
        no_copy="nocopy" in options, driver_config=DriverConfig(name=driver) if driver else None
    )
    return Mount(type="volume", source=source, target=target, read_only=read_only, volume_options=volume)


def _options(text: str, given: str) -> Sequence[str]:
    options = [option for option in given.split(",") if option]
    for option in options:
        if option not in {"ro", "rw", "z", "Z", "nocopy", *_PROPAGATIONS}:
            raise InvalidArgument(f"invalid volume specification: '{text}': invalid mode: {given}")
    return options


def _tmpfs(target: str, text: str) -> Mount:
    size, mode, read_only, rest = 0, 0, False, []
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if name == "size":
            size = parse_size(value)
        elif name == "mode":
            if not value or set(value) - set("01234567"):
                raise InvalidArgument(f"invalid tmpfs option {option!r} of {target}: mode is octal")
            mode = int(value, 8)
        elif name == "ro":
            read_only = True
        elif name != "rw":
            rest.append([name, value] if value else [name])
    options = TmpfsOptions(size_bytes=size, mode=mode, options=rest or None)
    return Mount(type="tmpfs", target=target, read_only=read_only, tmpfs_options=options)


def _normal(target: str) -> str:
    return str(PurePosixPath(target))
