"""What a user asks of a container: the bodies of POST /containers/create and /update, as in the Engine API.

All fields of dockerd's are here, also those that are refused or have no effect: an inspect shows them again.
"""

from typing import Any

import msgspec

from cluster.spec import HealthConfig, Mount
from worker.endpoints import EndpointSettings


class _Engine(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Base: names as Go spells them."""


class RestartPolicy(_Engine, frozen=True):
    """When a container is started again: `no`, `always`, `unless-stopped`, `on-failure`."""

    name: str = "no"
    maximum_retry_count: int = 0


class PortBinding(_Engine, frozen=True):
    """A port of the host; an empty `host_port` is any free one, "8000-8010" any free one of these."""

    host_ip: str = ""
    host_port: str = ""


class DeviceMapping(_Engine, frozen=True):
    """A device of the host in the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class LogSettings(_Engine, frozen=True):
    """Log driver and its options."""

    type: str = ""
    config: dict[str, str] = {}


class UlimitSetting(_Engine, frozen=True):
    """One resource limit."""

    name: str = ""
    hard: int = 0
    soft: int = 0


class Resources(_Engine, frozen=True):
    """Limits; sizes in bytes, CPU times in microseconds. All that `docker update` can change, and more."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[dict[str, Any]] | None = None
    blkio_device_read_bps: list[dict[str, Any]] | None = None
    blkio_device_write_bps: list[dict[str, Any]] | None = None
    blkio_device_read_iops: list[dict[str, Any]] | None = msgspec.field(
        default=None, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: list[dict[str, Any]] | None = msgspec.field(
        default=None, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[dict[str, Any]] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    pids_limit: int | None = None
    ulimits: list[UlimitSetting] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = msgspec.field(default=0, name="IOMaximumBandwidth")


class HostConfig(Resources, frozen=True):
    """How the container meets this machine."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogSettings = LogSettings()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] = {}
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: tuple[int, int] = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    mounts: list[Mount] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None


class Settings(_Engine, frozen=True):
    """The container itself (the Engine API's ContainerConfig)."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class NetworkingConfig(_Engine, frozen=True):
    """The networks that the container is in, by name or id."""

    endpoints_config: dict[str, EndpointSettings] = {}


class CreateRequest(Settings, frozen=True):
    """The body of POST /containers/create."""

    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


class UpdateRequest(Resources, frozen=True):
    """The body of POST /containers/{id}/update; 0 and empty leave a limit as it is."""

    restart_policy: RestartPolicy | None = None


def words(value: list[str] | str | None) -> list[str]:
    """A command: a list, or (as old clients send) one string."""
    return [value] if isinstance(value, str) else list(value or ())
