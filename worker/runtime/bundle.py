"""The OCI bundle's config.json for a container: a pure function of its config and of what the host can do.

Defaults are dockerd's (moby oci/defaults.go). Format: OCI runtime specification 1.0.2.
"""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cluster.errors import InvalidArgument
from cluster.linux import RLIMITS
from worker.runtime import apparmor, bpf, capabilities, devices, selinux
from worker.runtime.model import ContainerConfig, MountKind, MountPoint, SeccompMode
from worker.runtime.seccomp import seccomp_section
from worker.runtime.users import User

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_TARGET = "/sbin/docker-init"
CPU_PERIOD = 100_000  # microseconds

MASKED_PATHS = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
]  # fmt: skip
_SHM = "/dev/shm"  # noqa: S108 (in the container)
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def _device(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, object]:
    rule: dict[str, object] = {"allow": True, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


_DEVICES = [
    {"allow": False, "access": "rwm"},
    _device("c", None, None, "m"),
    _device("b", None, None, "m"),
    *(_device("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),  # null zero full random urandom
    *(_device("c", 5, minor, "rwm") for minor in (0, 1, 2)),  # tty console ptmx
    _device("c", 136, None, "rwm"),  # pts
]


@dataclass(frozen=True)
class Host:
    """What this machine and this process can give to containers."""

    machine: str
    unified_cgroups: bool
    capabilities: frozenset[str]
    swap_accounting: bool
    init: Path | None
    open_files: int | None = None  # soft limit of containers that ask for none
    apparmor: bool = False
    selinux: bool = False


@dataclass(frozen=True)
class Sources:
    """Where the container's own files lie on this node."""

    rootfs: Path
    hostname: Path
    hosts: Path
    resolv_conf: Path
    files: Path  # in-memory files, named 0, 1, … in the order of the config


def build(config: ContainerConfig, user: User, host: Host, sources: Sources, cgroup: str) -> bytes:
    """config.json."""
    added = ("ALL", *config.cap_add) if config.privileged else config.cap_add
    kept = capabilities.effective(added, config.cap_drop, host.capabilities)
    names = frozenset(kept)
    granted = kept if user.uid == 0 else []
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": _arguments(config, host),
        "env": _environment(config, user),
        "cwd": config.cwd or "/",
        "noNewPrivileges": config.no_new_privileges,
        "capabilities": {"bounding": kept, "effective": granted, "permitted": granted},
    }
    rlimits = _rlimits(config, host)
    if rlimits:
        process["rlimits"] = rlimits
    score = _oom_score_adj(config, host)
    if score:
        process["oomScoreAdj"] = score
    if profile := apparmor_profile(config, host):
        process["apparmorProfile"] = profile
    mount_label = ""
    if label := selinux.process_label(config.selinux, available=host.selinux):
        process["selinuxLabel"] = label
        mount_label = selinux.mount_label(config.selinux)
    linux: dict[str, Any] = {
        "cgroupsPath": cgroup,
        "namespaces": _namespaces(config, host),
        "resources": _resources(config, host),
        "maskedPaths": list(masked_paths(config)),
        "readonlyPaths": list(readonly_paths(config)),
    }
    if mount_label:
        linux["mountLabel"] = mount_label
    if propagation := _root_propagation(config):
        linux["rootfsPropagation"] = propagation
    if device_nodes := devices.nodes(config):
        linux["devices"] = device_nodes
    annotations: dict[str, str] = {}
    sysctls = _sysctls(config)
    if sysctls:
        linux["sysctl"] = sysctls
    mode = SeccompMode.UNCONFINED if config.privileged else config.seccomp
    seccomp = seccomp_section(mode, config.seccomp_profile, names, host.machine)
    if seccomp is not None:
        linux["seccomp"] = seccomp
        annotations[bpf.ANNOTATION] = bpf.compiled(bytes(seccomp))
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": str(sources.rootfs), "readonly": config.read_only},
        "mounts": _mounts(config, host, sources),
        "linux": linux,
        "annotations": {name: value for name, value in annotations.items() if value},
    }
    if "uts" not in config.namespaces:
        spec["hostname"] = config.hostname or config.id[:12]
    return msgspec.json.encode(spec)


def apparmor_profile(config: ContainerConfig, host: Host) -> str:
    """The container's AppArmor profile; "" for none, as on nodes without AppArmor."""
    if not host.apparmor:
        return ""
    if config.privileged:
        return apparmor.UNCONFINED
    return config.apparmor_profile or apparmor.PROFILE


def _arguments(config: ContainerConfig, host: Host) -> list[str]:
    if not config.args:
        raise InvalidArgument("no command specified")
    if not config.init:
        return list(config.args)
    if host.init is None:
        raise InvalidArgument(
            "init needs a static init on this node: install the package tini (apt-get install tini)"
        )
    return [INIT_TARGET, "--", *config.args]


def _environment(config: ContainerConfig, user: User) -> list[str]:
    """Docker's defaults, then the container's own, the last of a name winning; names without `=` left out."""
    values = [DEFAULT_PATH, f"HOSTNAME={config.hostname or config.id[:12]}"]
    if config.tty:
        values.append("TERM=xterm")
    if user.home:
        values.append(f"HOME={user.home}")
    values += [item for item in config.env if "=" in item]
    merged = {item.partition("=")[0]: item for item in values}
    return list(merged.values())


def _namespaces(config: ContainerConfig, host: Host) -> list[dict[str, str]]:
    paths = dict(config.namespaces)
    paths["network"] = "host" if config.netns is None else str(config.netns)
    kinds = ["pid", "ipc", "uts", "mount", "network"]
    if host.unified_cgroups:
        kinds.append("cgroup")
    found = []
    for kind in kinds:
        path = paths.get(kind, "")
        if path != "host":
            found.append({"type": kind, "path": path} if path else {"type": kind})
    return found


def masked_paths(config: ContainerConfig) -> Sequence[str]:
    """What the container sees as empty."""
    if config.privileged:
        return ()
    return MASKED_PATHS if config.masked_paths is None else config.masked_paths


def readonly_paths(config: ContainerConfig) -> Sequence[str]:
    """What of the kernel's files the container can't write to."""
    if config.privileged:
        return ()
    return READONLY_PATHS if config.readonly_paths is None else config.readonly_paths


def changed_resources(config: ContainerConfig, host: Host) -> bytes:
    """The limits, as the OCI runtime's `update` takes them."""
    found = _resources(config, host)
    del found["devices"]
    return msgspec.json.encode(found)


def _rlimits(config: ContainerConfig, host: Host) -> list[dict[str, object]]:
    limits = []
    for limit in config.ulimits:
        number = RLIMITS.get(limit.name)
        if number is None:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        soft, hard = _unlimited(limit.soft), _unlimited(limit.hard)
        if soft > hard:
            raise InvalidArgument(
                f"ulimit {limit.name}: soft limit {limit.soft} is above hard limit {limit.hard}"
            )
        if "CAP_SYS_RESOURCE" not in host.capabilities:
            ceiling = _unlimited(resource.getrlimit(number)[1])
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        limits.append({"type": f"RLIMIT_{limit.name.upper()}", "soft": soft, "hard": hard})
    if host.open_files is not None and all(limit["type"] != "RLIMIT_NOFILE" for limit in limits):
        hard = _unlimited(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        limits.append({"type": "RLIMIT_NOFILE", "soft": min(host.open_files, hard), "hard": hard})
    return limits


def _unlimited(value: int) -> int:
    return (1 << 64) - 1 if value < 0 else value


def _oom_score_adj(config: ContainerConfig, host: Host) -> int:
    if not -1000 <= config.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"invalid value {config.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if "CAP_SYS_RESOURCE" in host.capabilities:
        return config.oom_score_adj
    return max(0, config.oom_score_adj)


def _resources(config: ContainerConfig, host: Host) -> dict[str, Any]:
    wanted = config.resources
    found: dict[str, Any] = {"devices": devices.rules(config, _DEVICES)}
    memory: dict[str, int] = {}
    if wanted.memory:
        memory["limit"] = wanted.memory
        if host.swap_accounting:
            memory["swap"] = wanted.memory_swap or 2 * wanted.memory
    if wanted.memory_reservation:
        memory["reservation"] = wanted.memory_reservation
    if wanted.memory_swappiness is not None and not host.unified_cgroups:
        memory["swappiness"] = wanted.memory_swappiness
    if wanted.oom_kill_disable and not host.unified_cgroups:
        memory["disableOOMKiller"] = True
    if memory:
        found["memory"] = memory
    cpu: dict[str, object] = {}
    if wanted.nano_cpus:
        cpu |= {"quota": wanted.nano_cpus * CPU_PERIOD // 1_000_000_000, "period": CPU_PERIOD}
    if wanted.cpu_period:
        cpu["period"] = wanted.cpu_period
    if wanted.cpu_quota:
        cpu["quota"] = wanted.cpu_quota
    if wanted.cpu_shares:
        cpu["shares"] = wanted.cpu_shares
    if wanted.cpuset_cpus:
        cpu["cpus"] = wanted.cpuset_cpus
    if wanted.cpuset_mems:
        cpu["mems"] = wanted.cpuset_mems
    if cpu:
        found["cpu"] = cpu
    if wanted.blkio_weight:
        found["blockIO"] = {"weight": wanted.blkio_weight}
    if wanted.pids > 0:
        found["pids"] = {"limit": wanted.pids}
    return found


def _sysctls(config: ContainerConfig) -> dict[str, str]:
    """The container's sysctls over Docker's own: any user may bind low ports and ping, in its own network."""
    if config.netns is None:
        for name in config.sysctls:
            if name.startswith("net."):
                raise InvalidArgument(f"sysctl {name!r} not allowed in host network namespace")
        return dict(config.sysctls)
    ours = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    return ours | config.sysctls


def _mounts(config: ContainerConfig, host: Host, sources: Sources) -> list[dict[str, object]]:
    def mount(target: str, kind: str, *options: str, source: str = "") -> dict[str, object]:
        return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}

    quiet = ("nosuid", "noexec", "nodev")
    kernel = ("rw",) if config.privileged else ("ro",)
    found = [
        mount("/proc", "proc", *quiet),
        mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        mount("/sys", "sysfs", *quiet, *kernel),
        mount("/sys/fs/cgroup", "cgroup", *quiet, "relatime", *kernel),
        mount("/dev/mqueue", "mqueue", *quiet),
        mount(_SHM, "tmpfs", *quiet, "mode=1777", f"size={config.shm_size}", source="shm"),
    ]
    wanted = {point.target.rstrip("/") or "/" for point in config.mounts}
    found = [entry for entry in found if entry["destination"] not in wanted]
    ours = []
    for target, path in (
        ("/etc/resolv.conf", sources.resolv_conf),
        ("/etc/hostname", sources.hostname),
        ("/etc/hosts", sources.hosts),
    ):
        if target not in wanted:
            ours.append(mount(target, "bind", "bind", "rprivate", source=str(path)))
    # Parents before what is mounted inside them: a volume on /etc has its hosts file, too.
    ours += [_mount_point(point) for point in config.mounts]
    found += sorted(ours, key=lambda item: str(item["destination"]).rstrip("/").count("/"))
    for index, file in enumerate(config.files):
        found.append(
            mount(file.target, "bind", "bind", "ro", "rprivate", source=str(sources.files / str(index)))
        )
    if config.init and host.init is not None:
        found.append(mount(INIT_TARGET, "bind", "bind", "ro", "rprivate", source=str(host.init)))
    return found


def _root_propagation(config: ContainerConfig) -> str:
    """How mounts pass between the container and the node: as far as the mounts that ask for most need it."""
    wanted = {point.propagation for point in config.mounts}
    if wanted & {"shared", "rshared"}:
        return "shared"
    return "rslave" if wanted & {"slave", "rslave"} else ""


def _plain(source: Path | None) -> bool:
    """Whether nothing can be mounted below a source: a file or socket, which crun 1.8 can't bind so."""
    return source is not None and source.exists() and not source.is_dir()


def _mount_point(point: MountPoint) -> dict[str, object]:
    options: list[str]
    if point.kind is MountKind.TMPFS:
        usual = ("nosuid", "nodev", "noexec")
        options = [each for each in usual if each.removeprefix("no") not in point.options]
        options += point.options
        if point.size_bytes:
            options.append(f"size={point.size_bytes}")
        options.append(f"mode={point.mode or 0o1777:o}")
        if point.read_only:
            options.append("ro")
        return {"destination": point.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    propagation = point.propagation or "rprivate"
    if not point.recursive:
        propagation = propagation.removeprefix("r")  # crun takes "rprivate" for a wish to bind all
    options = ["rbind" if point.recursive else "bind", propagation, *point.options]
    if point.read_only or point.kind is MountKind.IMAGE:
        options.append("ro")
        if point.recursive and point.read_only_recursive and not _plain(point.source):
            options.append("rro")
    return {"destination": point.target, "type": "bind", "source": str(point.source), "options": options}
