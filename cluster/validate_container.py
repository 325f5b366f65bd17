"""Is a container's spec meant as written? What only the node can know (users, paths, images) is not asked.

Besides SwarmKit's checks, those that its engines make when a task starts: told at once, not by failing tasks.
"""

import re
import signal
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable
from ipaddress import ip_address
from posixpath import normpath

from cluster import template
from cluster.errors import InvalidArgument, NotImplementedHere
from cluster.spec import ContainerSpec, HealthConfig, Mount, Privileges

_MAX_IMAGE = 1024  # characters; distribution's bound for the name alone is 255
_MILLISECOND = 1_000_000
_MAX_MODE = 0xFFFFFFFF  # os.FileMode: a larger one breaks the answers that Go clients read
_MOUNT_TYPES = ("bind", "volume", "tmpfs")
_PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_RT_SIGNAL = re.compile(r"RTMIN(\+\d{1,2})?|RTMAX(-\d{1,2})?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_IMAGE = re.compile(
    rf"(?:(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


def check_container(container: ContainerSpec) -> None:
    """Raise InvalidArgument or NotImplementedHere."""
    if not container.image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    if len(container.image) > _MAX_IMAGE or not _IMAGE.fullmatch(container.image):
        raise InvalidArgument(f'ContainerSpec: "{container.image}" is not a valid repository/tag')
    for variable in container.env or ():
        name, _, value = variable.partition("=")
        if not name:
            raise InvalidArgument(f"invalid environment variable: {variable!r}")
        template.check(value)
    template.check(container.hostname)
    if not -1000 <= container.oom_score_adj <= 1000:
        raise InvalidArgument("invalid OomScoreAdj: must be between -1000 and 1000")
    if container.stop_signal and not _is_signal(container.stop_signal):
        raise InvalidArgument(f"invalid stop signal {container.stop_signal!r}: use a name such as SIGTERM")
    if container.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation {container.isolation!r}: only default is offered on Linux")
    _check_mounts(container.mounts or ())
    _check_files(container)
    _check_health(container.healthcheck)
    _check_names(container)
    for limit in container.ulimits or ():
        if 0 <= limit.hard < limit.soft:
            raise InvalidArgument(
                f"ulimit {limit.name}: soft limit {limit.soft} must be at most the hard limit {limit.hard}"
            )
    _check_privileges(container.privileges)


def _check_mounts(mounts: Iterable[Mount]) -> None:
    targets: set[str] = set()
    for mount in mounts:
        _check_mount(mount)
        target = normpath(mount.target)
        if target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(target)


def _check_mount(mount: Mount) -> None:
    kind = mount.type
    if kind not in _MOUNT_TYPES:
        raise InvalidArgument(f'invalid mount type "{kind}": one of {", ".join(_MOUNT_TYPES)}')
    template.check(mount.source)
    template.check(mount.target)
    templated = "{{" in mount.source
    if not mount.target.startswith(("/", "{{")):
        wrong = "must not be empty" if not mount.target else f"must be an absolute path: {mount.target!r}"
        raise InvalidArgument(f'invalid mount config for type "{kind}": field Target {wrong}')
    if normpath(mount.target) in ("/", "//"):
        raise InvalidArgument(f'invalid mount config for type "{kind}": destination can\'t be "/"')
    if kind == "bind" and not mount.source.startswith(("/", "{{")):
        wrong = "must not be empty" if not mount.source else f"must be an absolute path: {mount.source!r}"
        raise InvalidArgument(f'invalid mount config for type "bind": field Source {wrong}')
    if kind == "tmpfs" and mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    if kind == "volume" and mount.source and not templated and not _VOLUME_NAME.fullmatch(mount.source):
        raise InvalidArgument(
            f"invalid volume name {mount.source!r}: letters, digits, _ . - only, at least two, first a "
            "letter or digit; for a directory of the host use type=bind"
        )
    if mount.bind_options is not None and mount.bind_options.propagation not in _PROPAGATIONS:
        raise InvalidArgument(f"invalid propagation {mount.bind_options.propagation!r} of a bind mount")
    if mount.tmpfs_options is not None and mount.tmpfs_options.mode > _MAX_MODE:
        raise InvalidArgument(f"invalid mode {mount.tmpfs_options.mode:o} of a tmpfs")


def _check_files(container: ContainerSpec) -> None:
    for secret in container.secrets or ():
        if not secret.secret_id and not secret.secret_name:
            raise InvalidArgument("malformed secret reference: SecretID or SecretName must be given")
    for config in container.configs or ():
        if not config.config_id and not config.config_name:
            raise InvalidArgument("malformed config reference: ConfigID or ConfigName must be given")
    secrets = [reference.file for reference in container.secrets or () if reference.file]
    configs = [reference.file for reference in container.configs or () if reference.file]
    for kind, files in (("secret", secrets), ("config", configs)):
        if len({file.name for file in files}) != len(files):
            raise InvalidArgument(f"duplicate {kind} target paths")
        for file in files:
            if not file.name or ".." in file.name.split("/"):
                raise InvalidArgument(f"invalid {kind} target {file.name!r}: give a path without ..")
            if any(number and not (number.isascii() and number.isdigit()) for number in (file.uid, file.gid)):
                raise InvalidArgument(f"{kind} {file.name}: UID and GID must be numbers")
            if file.mode > _MAX_MODE:
                raise InvalidArgument(f"{kind} {file.name}: invalid mode {file.mode:o}")


def _check_health(health: HealthConfig | None) -> None:
    if health is None:
        return
    if health.test:
        kind, *command = health.test
        if kind not in ("NONE", "CMD", "CMD-SHELL", ""):
            raise InvalidArgument(f"Healthcheck.Test must begin with NONE, CMD or CMD-SHELL, not {kind!r}")
        if kind.startswith("CMD") and not command:
            raise InvalidArgument(f"Healthcheck.Test: {kind} needs a command")
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if 0 < (getattr(health, name) or 0) < _MILLISECOND:
            raise InvalidArgument(f"{name.replace('_', ' ')} in Healthcheck cannot be less than 1ms")


def _check_names(container: ContainerSpec) -> None:
    for server in container.dns_config.nameservers or () if container.dns_config else ():
        try:
            ip_address(server)
        except ValueError as error:
            raise InvalidArgument(f"invalid name server {server!r}: give its IP address") from error
    for entry in container.hosts or ():
        address = entry.split(maxsplit=1)
        try:
            ip_address(address[0] if len(address) == 2 else "")
        except ValueError as error:
            raise InvalidArgument(f"invalid host entry {entry!r}: write ADDRESS NAME") from error


def _check_privileges(privileges: Privileges | None) -> None:
    if privileges is None:
        return
    seccomp = privileges.seccomp
    if seccomp is not None:
        if seccomp.mode not in ("", "default", "unconfined", "custom"):
            raise InvalidArgument(f"invalid seccomp mode {seccomp.mode!r}: default, unconfined or custom")
        try:
            b64decode(seccomp.profile or "", validate=True)
        except (Base64Error, ValueError) as error:
            raise InvalidArgument(f"the seccomp profile must be base64: {error}") from error
        if (seccomp.mode == "custom") != bool(seccomp.profile):
            raise InvalidArgument("a seccomp profile goes with mode custom, and with no other")
    if privileges.credential_spec is not None:
        raise NotImplementedHere("credential specs are for Windows: leave CredentialSpec out")


def _is_signal(name: str) -> bool:
    if name.isascii() and name.isdigit():
        return 1 <= int(name) <= signal.SIGRTMAX
    short = name.upper().removeprefix("SIG")
    return f"SIG{short}" in signal.Signals.__members__ or bool(_RT_SIGNAL.fullmatch(short))
