"""HostConfig in the Engine API's JSON: a container's limits and privileges.

dockerd always sends every key, and clients with typed models count on it: what Shoal does not offer has
dockerd's value for "not set".
"""

from collections.abc import Mapping
from typing import Any

from worker.runtime.bundle import MASKED_PATHS, READONLY_PATHS
from worker.runtime.model import ContainerConfig, MountKind, MountPoint, SeccompMode

_NOT_SET: dict[str, Any] = {
    "AutoRemove": False,
    "BlkioDeviceReadBps": None,
    "BlkioDeviceReadIOps": None,
    "BlkioDeviceWriteBps": None,
    "BlkioDeviceWriteIOps": None,
    "BlkioWeight": 0,
    "BlkioWeightDevice": None,
    "Cgroup": "",
    "CgroupParent": "",
    "CgroupnsMode": "private",
    "ConsoleSize": [0, 0],
    "ContainerIDFile": "",
    "CpuCount": 0,
    "CpuPercent": 0,
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpusetMems": "",
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "Devices": None,
    "Dns": None,
    "DnsOptions": None,
    "DnsSearch": None,
    "ExtraHosts": None,
    "IOMaximumBandwidth": 0,
    "IOMaximumIOps": 0,
    "IpcMode": "private",
    "Isolation": "",
    "Links": None,
    "OomKillDisable": False,
    "PidMode": "",
    "Privileged": False,
    "PublishAllPorts": False,
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "UTSMode": "",
    "UsernsMode": "",
    "VolumeDriver": "",
    "VolumesFrom": None,
}


def host_config(
    config: ContainerConfig, runtime: str, network_mode: str, ports: Mapping[str, Any]
) -> dict[str, Any]:
    """The HostConfig of GET /containers/{id}/json."""
    limits = config.resources
    return _NOT_SET | {
        "Binds": [_bind(mount) for mount in config.mounts if mount.kind is MountKind.BIND] or None,
        "CapAdd": list(config.cap_add) or None,
        "CapDrop": list(config.cap_drop) or None,
        "CpuShares": limits.cpu_shares,
        "CpusetCpus": limits.cpuset_cpus,
        "GroupAdd": list(config.groups) or None,
        "Init": bool(config.init),
        "LogConfig": {"Type": config.log.driver, "Config": config.log.options},
        "MaskedPaths": list(MASKED_PATHS),
        "Memory": limits.memory,
        "MemoryReservation": limits.memory_reservation,
        "MemorySwap": limits.memory_swap,
        "MemorySwappiness": limits.memory_swappiness,
        "NanoCpus": limits.nano_cpus,
        "NetworkMode": network_mode,
        "OomScoreAdj": config.oom_score_adj,
        "PidsLimit": limits.pids or None,
        "PortBindings": dict(ports),
        "ReadonlyPaths": list(READONLY_PATHS),
        "ReadonlyRootfs": config.read_only,
        "Runtime": runtime,
        "SecurityOpt": _security(config) or None,
        "ShmSize": config.shm_size,
        "Sysctls": config.sysctls,
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in config.ulimits] or None,
    }


def _bind(mount: MountPoint) -> str:
    options = ",".join(filter(None, ("ro" if mount.read_only else "", mount.propagation)))
    return f"{mount.source}:{mount.target}" + (f":{options}" if options else "")


def _security(config: ContainerConfig) -> list[str]:
    options = ["no-new-privileges"] if config.no_new_privileges else []
    if config.seccomp is SeccompMode.UNCONFINED:
        options.append("seccomp=unconfined")
    elif config.seccomp is SeccompMode.CUSTOM:
        options.append(f"seccomp={config.seccomp_profile}")
    return options
