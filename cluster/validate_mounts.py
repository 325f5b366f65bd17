"""Are a container's mounts meant as written? Docker's rules and words, told when the service is created."""

import re
from collections.abc import Iterable
from posixpath import isabs, normpath

import msgspec

from cluster import template
from cluster.errors import InvalidArgument, NotImplementedHere
from cluster.spec import BindOptions, ImageOptions, Mount, TmpfsOptions, VolumeOptions
from cluster.volume_options import check_local_options

_MAX_MODE = 0xFFFFFFFF  # os.FileMode: a larger one breaks the answers that Go clients read
_PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_IMAGE = re.compile(
    rf"(?:(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
_MAX_IMAGE = 1024  # characters; distribution's bound for the name alone is 255
_TMPFS_FLAGS = {
    "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync", "atime", "noatime",
    "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "mand", "nomand",
    "ro", "rw",
}  # fmt: skip
_TMPFS_VALUES = {"mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "size"}
_OWN_OPTIONS: dict[str, type[msgspec.Struct]] = {
    "bind": BindOptions,
    "volume": VolumeOptions,
    "tmpfs": TmpfsOptions,
    "image": ImageOptions,
}


def is_image(reference: str) -> bool:
    """True for what can be an image's name."""
    return len(reference) <= _MAX_IMAGE and bool(_IMAGE.fullmatch(reference))


def check_mounts(mounts: Iterable[Mount], fields: template.Fields) -> None:
    """Raise InvalidArgument or NotImplementedHere."""
    targets: set[str] = set()
    for mount in mounts:
        _check_mount(mount, fields)
        target = normpath(mount.target)
        if target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(target)


def _refuse(mount: Mount, why: str) -> InvalidArgument:
    return InvalidArgument(f'invalid mount config for type "{mount.type}": {why}')


def _check_mount(mount: Mount, fields: template.Fields) -> None:
    match mount.type:
        case "npipe":
            raise InvalidArgument("mounts of type npipe are for Windows containers: nodes here run Linux")
        case "cluster":
            raise NotImplementedHere(
                "cluster volumes (CSI) are not supported: use type=volume, for shared storage with the "
                "options of the driver local"
            )
        case kind if kind not in _OWN_OPTIONS:
            raise InvalidArgument(f'mount type unknown: "{kind}" (there are {", ".join(_OWN_OPTIONS)})')
    _check_options_belong(mount)
    _check_target(mount, fields)
    template.check(mount.source, fields)
    match mount.type:
        case "bind":
            _check_bind(mount)
        case "volume":
            _check_volume(mount, fields)
        case "tmpfs":
            _check_tmpfs(mount)
        case _:
            _check_image(mount)


def _check_options_belong(mount: Mount) -> None:
    """Options of another type are refused, but for empty ones, which some clients always send."""
    given = {
        "bind": mount.bind_options,
        "volume": mount.volume_options,
        "tmpfs": mount.tmpfs_options,
        "image": mount.image_options,
    }
    for kind, options in given.items():
        if kind != mount.type and options is not None and options != _OWN_OPTIONS[kind]():
            raise _refuse(mount, f"field {kind.capitalize()}Options must not be specified")


def _check_target(mount: Mount, fields: template.Fields) -> None:
    template.check(mount.target, fields)
    if not mount.target.startswith(("/", "{{")):
        wrong = "must not be empty" if not mount.target else f"must be an absolute path: {mount.target!r}"
        raise _refuse(mount, f"field Target {wrong}")
    if normpath(mount.target) in ("/", "//"):
        raise _refuse(mount, "destination can't be '/'")


def _check_bind(mount: Mount) -> None:
    if not mount.source.startswith(("/", "{{")):
        wrong = "must not be empty" if not mount.source else f"must be an absolute path: {mount.source!r}"
        raise _refuse(mount, f"field Source {wrong}")
    options = mount.bind_options or BindOptions()
    if options.propagation not in _PROPAGATIONS:
        raise _refuse(mount, f"invalid propagation: {options.propagation!r}")
    if options.read_only_non_recursive and options.read_only_force_recursive:
        raise _refuse(mount, "ReadOnlyForceRecursive and ReadOnlyNonRecursive exclude each other")
    if options.read_only_force_recursive:
        if not mount.read_only:
            raise _refuse(mount, "ReadOnlyForceRecursive needs ReadOnly")
        if options.propagation not in ("", "rprivate"):
            raise _refuse(mount, "ReadOnlyForceRecursive needs the propagation rprivate")
        if options.non_recursive:
            raise _refuse(mount, "ReadOnlyForceRecursive and NonRecursive exclude each other")
    if options.read_only_non_recursive and not mount.read_only:
        raise _refuse(mount, "ReadOnlyNonRecursive needs ReadOnly")


def _check_volume(mount: Mount, fields: template.Fields) -> None:
    if mount.source and "{{" not in mount.source and not _VOLUME_NAME.fullmatch(mount.source):
        raise InvalidArgument(
            f'create {mount.source}: "{mount.source}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use '
            "type=bind"
        )
    if not mount.source and mount.read_only:
        raise _refuse(mount, "must not set ReadOnly mode when using anonymous volumes")
    options = mount.volume_options
    if options is None:
        return
    if options.subpath:
        _check_subpath(mount, options.subpath)
        if not mount.source:
            raise _refuse(mount, "must not set Subpath when using anonymous volumes")
    for value in (options.labels or {}).values():
        template.check(value, fields)
    driver = options.driver_config
    if driver is not None:
        given = driver.options or {}
        for value in given.values():
            template.check(value, fields)
        if driver.name in ("", "local"):
            check_local_options(given)


def _check_tmpfs(mount: Mount) -> None:
    if mount.source:
        raise _refuse(mount, "field Source must not be specified")
    options = mount.tmpfs_options or TmpfsOptions()
    if options.mode > _MAX_MODE:
        raise InvalidArgument(f"invalid mode {options.mode:o} of a tmpfs")
    for option in options.options or ():
        name = option[0] if option else ""
        if len(option) == 1 and name in _TMPFS_FLAGS:
            continue
        if len(option) == 2 and name in _TMPFS_VALUES and "," not in option[1]:
            continue
        raise _refuse(mount, f"invalid tmpfs option {'='.join(option)!r}")


def _check_image(mount: Mount) -> None:
    if not mount.source:
        raise _refuse(mount, "field Source must not be empty")
    if "{{" not in mount.source and not is_image(mount.source):
        raise _refuse(mount, f"{mount.source!r} is not a valid repository/tag")
    if mount.image_options is not None and mount.image_options.subpath:
        _check_subpath(mount, mount.image_options.subpath)


def _check_subpath(mount: Mount, subpath: str) -> None:
    if isabs(subpath) or normpath(subpath).split("/")[0] == "..":
        raise _refuse(mount, f"subpath {subpath!r} must be a relative path within the {mount.type}")
