"""shoald's settings: dockerd's flags where the meaning is the same, from the command line and a JSON file.

As in dockerd, a setting given both as a flag and in the file is refused rather than silently resolved, except
for lists (labels, insecure registries, mirrors), which add up.
"""

import hashlib
import ipaddress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cluster import generic_resources
from cluster.codec import UNREADABLE
from cluster.errors import InvalidArgument
from cluster.log_options import check_log_options
from shoal.daemon.manager_account import manager_account

DEFAULT_HOST = "unix:///var/run/docker.sock"
DEFAULT_CONFIG_FILE = Path("/etc/shoal/daemon.json")
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
LOG_FORMATS = ("text", "json")
TLS_PORT = 2376
PLAIN_PORT = 2375


class DaemonConfig(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """All settings; the JSON file uses the same names as dockerd's daemon.json."""

    hosts: tuple[str, ...] = ()
    data_root: str = "/var/lib/shoal"
    exec_root: str = "/run/shoal"
    pidfile: str = "/run/shoald.pid"
    log_level: str = "info"
    log_format: str = "text"
    labels: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = "/etc/shoal/ca.pem"
    tlscert: str = "/etc/shoal/cert.pem"
    tlskey: str = "/etc/shoal/key.pem"
    allow_insecure_tcp: bool = False
    cgroup_parent: str = ""
    default_runtime: str = "crun"
    manager_user: str = ""
    advertise_addr: str = ""
    log_driver: str = "json-file"
    log_opts: dict[str, str] = {}
    init: bool = False
    node_generic_resources: tuple[str, ...] = ()
    metrics_addr: str = ""

    @property
    def container_cgroup(self) -> str:
        """Where containers' cgroups go. By default each data root has a place of its own, because a starting
        daemon ends what it finds there and does not know.
        """
        digest = hashlib.sha256(str(Path(self.data_root).absolute()).encode()).hexdigest()
        return self.cgroup_parent or f"/shoal/{digest[:12]}"

    @property
    def engine_labels(self) -> dict[str, str]:
        """The labels as a mapping; `key` alone is a key with an empty value."""
        return dict(_label(text) for text in self.labels)


class Listener(msgspec.Struct, frozen=True):
    """One address of the API: a unix socket path, or TCP with or without TLS."""

    path: str = ""
    address: str = ""
    port: int = 0
    tls: bool = False

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.address}:{self.port}"


_LISTS = {"hosts", "labels", "insecure_registries", "registry_mirrors", "node_generic_resources"}
_FIELD_OF_KEY = {field.encode_name: field.name for field in msgspec.structs.fields(DaemonConfig)}


def load(flags: dict[str, Any], config_file: Path | None) -> DaemonConfig:
    """Settings from flags (only those given) and the file.

    A missing file is an error only when it was named. Raises InvalidArgument with the setting's name.
    """
    values: dict[str, Any] = {}
    path = config_file or DEFAULT_CONFIG_FILE
    if config_file is not None or path.exists():
        values = _read(path)
    for name, value in flags.items():
        if name in _LISTS:
            values[name] = (*values.get(name, ()), *value)
        elif name in values:
            key = name.replace("_", "-")
            raise InvalidArgument(
                f"the following directive is specified both as a flag and in the configuration file {path}: "
                f"{key}. Remove one of the two"
            )
        else:
            values[name] = value
    config = DaemonConfig(**values)
    _check(config)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"can't read the configuration file {path}: {error.strerror}") from error
    try:
        parsed = msgspec.json.decode(text, type=DaemonConfig)
        given = msgspec.json.decode(text, type=dict[str, Any])
    except UNREADABLE as error:
        raise InvalidArgument(f"the configuration file {path} is not valid: {error}") from error
    return {_FIELD_OF_KEY[key]: getattr(parsed, _FIELD_OF_KEY[key]) for key in given}


def _check(config: DaemonConfig) -> None:
    if config.log_level not in LOG_LEVELS:
        raise InvalidArgument(f"invalid log level {config.log_level!r}: use one of {', '.join(LOG_LEVELS)}")
    if config.log_format not in LOG_FORMATS:
        raise InvalidArgument(f"invalid log format {config.log_format!r}: use text or json")
    if config.default_runtime not in ("crun", "runc"):
        raise InvalidArgument(f"unknown runtime {config.default_runtime!r}: use crun or runc")
    manager_account(config.manager_user)
    check_log_options(config.log_driver, config.log_opts)
    for label in config.labels:
        if not _label(label)[0]:
            raise InvalidArgument(f"invalid label {label!r}: write key=value")
    generic_resources.parse(config.node_generic_resources)
    if config.metrics_addr:
        metrics_place(config.metrics_addr)
    listeners(config)


def listeners(config: DaemonConfig) -> list[Listener]:
    """Where the API listens.

    TCP without TLS is root for everyone who can reach it, so it is refused unless it is on loopback or
    explicitly allowed.
    """
    return [_listener(host, config) for host in config.hosts or (DEFAULT_HOST,)]


def api_ports(config: DaemonConfig) -> set[int]:
    """The TCP ports where the API listens."""
    return {each.port for each in listeners(config) if each.port}


def _listener(host: str, config: DaemonConfig) -> Listener:
    parts = urlsplit(host if "://" in host else f"tcp://{host}")
    if parts.scheme == "unix":
        path = parts.netloc + parts.path
        if not path:
            raise InvalidArgument(f"invalid host {host!r}: a unix socket needs a path, as unix:///run/x.sock")
        if len(path.encode()) > 107:
            raise InvalidArgument(f"invalid host {host!r}: a unix socket's path may have 107 bytes at most")
        return Listener(path=path)
    if parts.scheme != "tcp":
        raise InvalidArgument(f"invalid host {host!r}: use unix://PATH or tcp://ADDRESS:PORT")
    tls = config.tls or config.tlsverify
    try:
        port = parts.port or (TLS_PORT if tls else PLAIN_PORT)
    except ValueError as error:
        raise InvalidArgument(f"invalid host {host!r}: {error}") from error
    address = parts.hostname or "127.0.0.1"
    if not tls and not config.allow_insecure_tcp and not _loopback(address):
        raise InvalidArgument(
            f"refusing to serve the API on {host} without TLS: whoever reaches it is root on this machine. "
            "Add --tlsverify with --tlscacert, --tlscert and --tlskey, bind to 127.0.0.1, or, on a network "
            "that nobody else can reach, pass --allow-insecure-tcp"
        )
    return Listener(address=address, port=port, tls=tls)


def metrics_place(address: str) -> tuple[str, int]:
    """Host ("" for all addresses) and port where metrics are served."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"invalid metrics address {address!r}: write ADDRESS:PORT")
    return host.strip("[]"), int(port)


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value
