"""What a container is (its config) and how it is (its state). Both are stored as JSON."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

DEFAULT_STOP_GRACE = 10_000_000_000
DEFAULT_SHM_SIZE = 64 << 20


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all runtime records: immutable."""


class MountKind(StrEnum):
    """Kinds of mounts that the runtime makes."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"
    IMAGE = "image"


class MountPoint(Struct, frozen=True):
    """A mount, resolved: for bind and volume `source` is a path on this node.

    `subpath` is what of the volume or image is mounted. `options_of_volume` are those of the driver `local`:
    the file system to mount on the volume's directory first. For images: their id and layers, lowest first.
    """

    kind: MountKind
    target: str
    source: Path | None = None
    volume_name: str = ""
    driver: str = ""
    read_only: bool = False
    propagation: str = ""  # private, rprivate, shared, rshared, slave, rslave; empty: rprivate
    recursive: bool = True  # bind what is mounted below the source too
    read_only_recursive: bool = True  # with read_only: also what is mounted below the source
    copy_up: bool = False  # fill an empty volume from what the image has at `target`
    size_bytes: int = 0  # tmpfs: 0 for no limit
    mode: int = 0  # tmpfs: permission bits, 0 for 1777
    options: tuple[str, ...] = ()  # more options, such as "noexec"
    subpath: str = ""
    options_of_volume: dict[str, str] = {}
    image_id: str = ""
    layers: tuple[Path, ...] = ()


class InMemoryFile(Struct, frozen=True):
    """A secret or config: a file that never touches a disk of this node. `data` is not stored."""

    target: str
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class Rlimit(Struct, frozen=True):
    """One resource limit; `name` as in `docker --ulimit` (nofile), -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Device(Struct, frozen=True):
    """A device node of the host in the container; `permissions` of r, w, m."""

    source: str
    target: str
    permissions: str = "rwm"


class ResourceLimits(Struct, frozen=True):
    """Bounds of a container; 0 is none. `memory_swap`: memory plus swap, -1 unlimited, 0 twice the memory."""

    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cpu_quota: int = 0  # microseconds in each period; in place of nano_cpus
    cpu_period: int = 0
    blkio_weight: int = 0
    oom_kill_disable: bool = False
    pids: int = 0


class LogConfig(Struct, frozen=True):
    """Log driver (`json-file`, `local`, `none`, `journald`; empty: the node's) with Docker's options."""

    driver: str = "json-file"
    options: dict[str, str] = {}


class HealthCheck(Struct, frozen=True):
    """A health check with all defaults applied; durations in nanoseconds. No `test`: none."""

    test: tuple[str, ...] = ()
    interval: int = 30_000_000_000
    timeout: int = 30_000_000_000
    retries: int = 3
    start_period: int = 0
    start_interval: int = 5_000_000_000


class SeccompMode(StrEnum):
    """Which seccomp profile applies."""

    DEFAULT = "default"
    UNCONFINED = "unconfined"
    CUSTOM = "custom"


class ContainerConfig(Struct, frozen=True):
    """All that makes a container. Everything is resolved: no image defaults are left to apply.

    `layers` are unpacked image layers, lowest first. `netns` is None for the host's network, else the path
    of a network namespace (driver `none`: an empty one). `args` is entrypoint and command. `namespaces` are
    those that are not the container's own: kind (pid, ipc, uts, cgroup) → "host" or a namespace's path.
    `record` belongs to whoever made the container; the runtime keeps it, no more.
    """

    id: str
    args: tuple[str, ...]
    layers: tuple[Path, ...]
    name: str = ""
    image_id: str = ""
    image_name: str = ""
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    labels: dict[str, str] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    read_only: bool = False
    mounts: tuple[MountPoint, ...] = ()
    netns: Path | None = None
    resolv_conf: str = ""
    hosts: str = ""
    stop_signal: str = ""
    stop_grace_ns: int = DEFAULT_STOP_GRACE
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: SeccompMode = SeccompMode.DEFAULT
    seccomp_profile: str = ""  # JSON, with SeccompMode.CUSTOM
    apparmor_profile: str = ""  # empty: Docker's default where the node has AppArmor; or "unconfined"
    selinux: dict[str, str] = {}  # user, role, type, level: what is asked for
    sysctls: dict[str, str] = {}
    ulimits: tuple[Rlimit, ...] = ()
    init: bool | None = False  # None: as the node does by default
    resources: ResourceLimits = ResourceLimits()
    oom_score_adj: int = 0
    log: LogConfig = LogConfig()
    files: tuple[InMemoryFile, ...] = ()
    shm_size: int = DEFAULT_SHM_SIZE
    healthcheck: HealthCheck | None = None
    created_at: int = 0
    privileged: bool = False
    devices: tuple[Device, ...] = ()
    device_rules: tuple[str, ...] = ()  # "c 1:3 rwm", of control groups
    namespaces: dict[str, str] = {}
    masked_paths: tuple[str, ...] | None = None  # None: the usual ones
    readonly_paths: tuple[str, ...] | None = None
    record: str = ""


class ContainerStatus(StrEnum):
    """The Engine API's words for a container's state."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    DEAD = "dead"


class HealthStatus(StrEnum):
    """The Engine API's words for health."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class HealthProbe(Struct, frozen=True):
    """One probe's result; times in ns since the epoch. `exit_code` -1: it could not run or took too long."""

    start: int
    end: int
    exit_code: int
    output: str


class Health(Struct, frozen=True):
    """Health and the last probes, oldest first."""

    status: HealthStatus = HealthStatus.NONE
    failing_streak: int = 0
    log: tuple[HealthProbe, ...] = ()


class ProcessIdentity(Struct, frozen=True):
    """A process beyond doubt: a pid alone is reused."""

    pid: int
    start_time: int  # clock ticks since boot (proc(5), field 22)
    boot_id: str


class ContainerState(Struct, frozen=True):
    """How a container is. Times in ns since the epoch, 0 for never."""

    status: ContainerStatus = ContainerStatus.CREATED
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    error: str = ""
    health: Health = Health()
    restarts: int = 0
    process: ProcessIdentity | None = None

    @property
    def running(self) -> bool:
        """True while its processes exist (also when paused)."""
        return self.status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED)


class ExecResult(Struct, frozen=True):
    """What a command in a container did. `output` is stdout and stderr as they came, cut at the limit."""

    exit_code: int
    output: bytes
    timed_out: bool = False
    truncated: bool = False


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} in a container record")


def _decode(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(f"{kind.__name__} in a container record")


_encoder = msgspec.json.Encoder(enc_hook=_encode)
_config_decoder = msgspec.json.Decoder(ContainerConfig, dec_hook=_decode)
_state_decoder = msgspec.json.Decoder(ContainerState, dec_hook=_decode)

encode_record: Callable[[Any], bytes] = _encoder.encode
decode_state: Callable[[bytes], ContainerState] = _state_decoder.decode


def without_data(config: ContainerConfig) -> ContainerConfig:
    """The config as kept and stored: without the data of its in-memory files."""
    bare = tuple(msgspec.structs.replace(file, data=b"") for file in config.files)
    return msgspec.structs.replace(config, files=bare)


def encode_config(config: ContainerConfig) -> bytes:
    """The config as stored."""
    return _encoder.encode(without_data(config))


def decode_config(data: bytes) -> ContainerConfig:
    """The stored config."""
    return _config_decoder.decode(data)
