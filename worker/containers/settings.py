"""From what a user asks of a container, and its image, to what the runtime runs: pure, nothing done yet."""

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from cluster.errors import InvalidArgument, NotImplementedHere
from cluster.seams import MILLISECOND, SECOND
from cluster.spec import HealthConfig
from worker.containers.record import Record, encode
from worker.containers.request import (
    CreateRequest,
    HostConfig,
    LogSettings,
    RestartPolicy,
    Settings,
    UpdateRequest,
    words,
)
from worker.health import effective_check
from worker.images.config import ImageConfig
from worker.images.model import Image
from worker.runtime.bundle import MASKED_PATHS, READONLY_PATHS
from worker.runtime.model import (
    DEFAULT_SHM_SIZE,
    DEFAULT_STOP_GRACE,
    ContainerConfig,
    Device,
    LogConfig,
    MountPoint,
    ResourceLimits,
    Rlimit,
    SeccompMode,
)

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IPC_MODES = ("", "none", "private", "shareable", "host")
RUNTIMES = ("", "crun", "runc", "io.containerd.runc.v2")
LEAST_MEMORY = 6 << 20
"""dockerd's smallest limit, in bytes."""


def completed(settings: Settings, image: ImageConfig) -> Settings:
    """The settings with the image's for all that the user left open."""
    entrypoint, cmd = words(settings.entrypoint), words(settings.cmd)
    if not entrypoint:
        entrypoint, cmd = list(image.entrypoint), cmd or list(image.cmd)
    if entrypoint == [""]:  # `--entrypoint ""`: none, not even the image's
        entrypoint = []
    check = settings.healthcheck or image.healthcheck
    if check is not None and image.healthcheck is not None and not check.test:
        check = replace(check, test=image.healthcheck.test)
    return replace(
        settings,
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        env=_environment(settings.env or [], image),
        working_dir=settings.working_dir or image.working_dir,
        user=settings.user or image.user,
        labels={**image.labels, **settings.labels},
        volumes={**{path: {} for path in image.volumes}, **(settings.volumes or {})} or None,
        exposed_ports={**{port: {} for port in image.exposed_ports}, **(settings.exposed_ports or {})}
        or None,
        stop_signal=settings.stop_signal or image.stop_signal,
        stop_timeout=image.stop_timeout if settings.stop_timeout is None else settings.stop_timeout,
        healthcheck=check,
        on_build=list(image.on_build) or None,
    )


def normalized(host: HostConfig, *, unified_cgroups: bool, default_log: LogConfig) -> HostConfig:
    """The host config as dockerd shows it: its own defaults for what the user left open."""
    swap = host.memory_swap or 2 * host.memory
    return replace(
        host,
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or ("private" if unified_cgroups else "host"),
        shm_size=host.shm_size or DEFAULT_SHM_SIZE,
        memory_swap=swap,
        restart_policy=RestartPolicy("no") if not host.restart_policy.name else host.restart_policy,
        log_config=_log(host.log_config, default_log),
        masked_paths=_paths(host, host.masked_paths, MASKED_PATHS),
        readonly_paths=_paths(host, host.readonly_paths, READONLY_PATHS),
    )


def _log(asked: LogSettings, default: LogConfig) -> LogSettings:
    """The daemon's own driver when none is named, and its options where that driver is used."""
    driver = asked.type or default.driver
    options = default.options if driver == default.driver else {}
    return LogSettings(type=driver, config={**options, **asked.config})


def warnings(request: CreateRequest) -> list[str]:
    """What a user should know of a container that can be made nevertheless."""
    found = []
    if request.host_config.oom_kill_disable and not request.host_config.memory:
        found.append("OOM killer is disabled for the container, but no memory limit is set")
    published = request.host_config.publish_all_ports or request.host_config.port_bindings
    if published and request.host_config.network_mode == "host":
        found.append("Published ports are discarded when using host network mode")
    return found


def _paths(host: HostConfig, given: list[str] | None, usual: list[str]) -> list[str]:
    if host.privileged or "systempaths=unconfined" in (host.security_opt or ()):
        return []
    return list(usual) if given is None else given


def check(settings: Settings, host: HostConfig, cpus: int) -> None:
    """Refuse what makes no sense on a machine with so many CPUs, and what this engine does not do."""
    if host.runtime not in RUNTIMES:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if settings.stop_timeout is not None and settings.stop_timeout < -1:
        raise InvalidArgument("the stop timeout must be -1 or more seconds")
    if host.ipc_mode not in IPC_MODES and not host.ipc_mode.startswith("container:"):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if settings.healthcheck is not None:
        _check_intervals(settings.healthcheck)
    check_limits(host, cpus)
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for what, value in (
        ("user namespaces", host.userns_mode not in ("", "host")),
        ("devices of a driver (--gpus)", bool(host.device_requests)),
        ("storage options", bool(host.storage_opt)),
        ("isolation technologies", host.isolation not in ("", "default")),
        ("control groups of the user's own (--cgroup-parent)", bool(host.cgroup_parent)),
        ("weights and rates of single block devices", any(_block_devices(host))),
    ):
        if value:
            raise NotImplementedHere(f"this version of Shoal does not offer {what}")


def _check_intervals(health: HealthConfig) -> None:
    for name, word in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ):
        value = getattr(health, name) or 0
        if value and value < MILLISECOND:
            raise InvalidArgument(f"{word} in Healthcheck cannot be less than 1ms")


def _block_devices(host: HostConfig) -> tuple[object, ...]:
    return (
        host.blkio_weight_device,
        host.blkio_device_read_bps,
        host.blkio_device_write_bps,
        host.blkio_device_read_iops,
        host.blkio_device_write_iops,
    )


def check_limits(host: HostConfig, cpus: int) -> None:
    """Refuse limits that contradict one another or this machine's number of CPUs, in dockerd's words."""
    if 0 < host.memory < LEAST_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory < 0 or host.memory_reservation < 0:
        raise InvalidArgument("a memory limit can't be negative")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not host.memory and host.memory_swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.nano_cpus and not 10**7 <= host.nano_cpus <= cpus * 10**9:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")


def changed_limits(host: HostConfig, request: UpdateRequest) -> HostConfig:
    """The host config with the limits that an update names: 0 and empty leave one as it is."""
    names = (
        "cpu_shares", "memory", "nano_cpus", "blkio_weight", "cpu_period", "cpu_quota", "cpuset_cpus",
        "cpuset_mems", "memory_reservation", "memory_swap", "pids_limit",
    )  # fmt: skip
    changed = {name: value for name in names if (value := getattr(request, name))}
    if host.nano_cpus and (changed.get("cpu_period") or changed.get("cpu_quota")):
        raise InvalidArgument(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"
        )
    if changed.get("memory") and "memory_swap" not in changed and host.memory_swap == 2 * host.memory:
        changed["memory_swap"] = 2 * changed["memory"]
    memory = changed.get("memory", 0)
    if memory and 0 < changed.get("memory_swap", host.memory_swap) < memory:
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the "
            "same time"
        )
    return replace(host, **changed)


def limits(host: HostConfig) -> ResourceLimits:
    """The limits in the runtime's terms."""
    swappiness = host.memory_swappiness
    return ResourceLimits(
        memory=host.memory,
        memory_reservation=host.memory_reservation,
        memory_swap=host.memory_swap,
        memory_swappiness=None if swappiness == -1 else swappiness,
        nano_cpus=host.nano_cpus,
        cpu_shares=host.cpu_shares,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        cpu_quota=max(0, host.cpu_quota),
        cpu_period=host.cpu_period,
        blkio_weight=host.blkio_weight,
        oom_kill_disable=host.oom_kill_disable,
        pids=max(0, host.pids_limit or 0),
    )


def container_config(
    identifier: str, name: str, image: Image, record: Record, mounts: tuple[MountPoint, ...], created_at: int
) -> ContainerConfig:
    """The container, but for its network and namespaces, which are known when it starts."""
    settings, host = record.settings, record.host
    security = _Security.parse(host)
    grace = settings.stop_timeout
    return ContainerConfig(
        id=identifier,
        name=name,
        image_id=image.id,
        image_name=settings.image,
        layers=image.layers,
        args=(*words(settings.entrypoint), *words(settings.cmd)),
        env=tuple(text for text in settings.env or () if "=" in text),
        cwd=settings.working_dir or "/",
        user=settings.user,
        groups=tuple(host.group_add or ()),
        hostname=settings.hostname,
        domainname=settings.domainname,
        labels=settings.labels,
        tty=settings.tty,
        open_stdin=settings.open_stdin,
        stdin_once=settings.stdin_once,
        read_only=host.readonly_rootfs,
        mounts=mounts,
        stop_signal=settings.stop_signal,
        stop_grace_ns=DEFAULT_STOP_GRACE if grace is None else grace * SECOND,
        cap_add=tuple(host.cap_add or ()),
        cap_drop=tuple(host.cap_drop or ()),
        no_new_privileges=security.no_new_privileges,
        seccomp=security.seccomp,
        seccomp_profile=security.seccomp_profile,
        apparmor_profile=security.apparmor,
        sysctls=host.sysctls or {},
        ulimits=tuple(Rlimit(name=u.name, soft=u.soft, hard=u.hard) for u in host.ulimits or ()),
        init=host.init,
        resources=limits(host),
        oom_score_adj=host.oom_score_adj,
        log=LogConfig(driver=host.log_config.type, options=host.log_config.config),
        shm_size=host.shm_size,
        healthcheck=effective_check(image.config.healthcheck, settings.healthcheck),
        created_at=created_at,
        privileged=host.privileged,
        devices=tuple(
            Device(
                source=device.path_on_host,
                target=device.path_in_container or device.path_on_host,
                permissions=device.cgroup_permissions or "rwm",
            )
            for device in host.devices or ()
        ),
        device_rules=tuple(host.device_cgroup_rules or ()),
        masked_paths=tuple(host.masked_paths or ()),
        readonly_paths=tuple(host.readonly_paths or ()),
        record=encode(record),
    )


class _Security:
    """`--security-opt`."""

    def __init__(self) -> None:
        self.no_new_privileges = False
        self.seccomp = SeccompMode.DEFAULT
        self.seccomp_profile = ""
        self.apparmor = ""

    @classmethod
    def parse(cls, host: HostConfig) -> "_Security":
        found = cls()
        for text in host.security_opt or ():
            separator = "=" if "=" in text else ":"
            name, _, value = text.partition(separator)
            match name:
                case "no-new-privileges":
                    found.no_new_privileges = value in ("", "true")
                case "seccomp":
                    found._set_seccomp(value)
                case "apparmor":
                    found.apparmor = value
                case "label" | "systempaths" | "writable-cgroups":
                    pass  # SELinux is not used; paths are in the host config already
                case _:
                    raise InvalidArgument(f'invalid --security-opt 2: "{text}"')
        return found

    def _set_seccomp(self, value: str) -> None:
        if value == "unconfined":
            self.seccomp = SeccompMode.UNCONFINED
        elif value not in ("", "builtin", "default"):
            self.seccomp, self.seccomp_profile = SeccompMode.CUSTOM, value


def _environment(own: list[str], image: ImageConfig) -> list[str]:
    """The user's variables, then those of the image that the user leaves alone; a bare name removes one."""
    named = {text.partition("=")[0] for text in own}
    inherited = [text for text in image.env if text.partition("=")[0] not in named]
    if "PATH" not in named and not any(text.startswith("PATH=") for text in inherited):
        inherited.append(DEFAULT_PATH)
    return own + inherited


def with_network(
    config: ContainerConfig,
    *,
    netns: Path | None,
    resolv_conf: str,
    hosts: str,
    hostname: str,
    namespaces: Mapping[str, str],
    env: tuple[str, ...],
) -> ContainerConfig:
    """The config for one start."""
    return replace(
        config,
        netns=netns,
        resolv_conf=resolv_conf,
        hosts=hosts,
        hostname=hostname,
        namespaces=dict(namespaces),
        env=env,
    )
