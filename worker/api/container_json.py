"""Containers in the Engine API's JSON."""

from collections.abc import Mapping
from typing import Any

from cluster.dataplane import mac_for
from cluster.engine_json import rfc3339
from cluster.seams import SECOND
from netplane.model import Sandbox
from worker.api.host_config import host_config
from worker.engine import Engine
from worker.runtime.model import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    HealthCheck,
    HealthStatus,
    MountPoint,
)

ZERO_TIME = "0001-01-01T00:00:00Z"


def container_summary(
    engine: Engine, config: ContainerConfig, state: ContainerState, now: int
) -> dict[str, Any]:
    """An entry of GET /containers/json."""
    sandbox = engine.network.sandboxes().get(config.id)
    return {
        "Id": config.id,
        "Names": [f"/{config.name}"],
        "Image": config.image_name,
        "ImageID": config.image_id,
        "Command": " ".join(config.args),
        "Created": config.created_at // SECOND,
        "Ports": _ports(sandbox),
        "Labels": config.labels,
        "State": state.status.value,
        "Status": status_text(state, now),
        "HostConfig": {"NetworkMode": _network_mode(config, sandbox)},
        "NetworkSettings": {"Networks": _networks(engine, sandbox)},
        "Mounts": [_mount(mount) for mount in config.mounts],
    }


def inspect_json(engine: Engine, config: ContainerConfig, state: ContainerState) -> dict[str, Any]:
    """GET /containers/{id}/json."""
    sandbox = engine.network.sandboxes().get(config.id)
    networks = _networks(engine, sandbox)
    first = next(iter(networks.values()), {})
    etc = engine.runtime.etc(config.id)
    return {
        "Id": config.id,
        "Created": rfc3339(config.created_at),
        "Path": config.args[0],
        "Args": list(config.args[1:]),
        "State": _state(state),
        "Image": config.image_id,
        "Name": f"/{config.name}",
        "RestartCount": state.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": config.apparmor_profile,
        "ExecIDs": None,
        "LogPath": str(engine.log_path(config.id)),
        "HostnamePath": str(etc / "hostname"),
        "HostsPath": str(etc / "hosts"),
        "ResolvConfPath": str(etc / "resolv.conf"),
        "HostConfig": host_config(
            config, engine.default_runtime, _network_mode(config, sandbox), _port_map(sandbox)
        ),
        "GraphDriver": {"Name": "overlay2", "Data": {"MergedDir": str(engine.runtime.rootfs(config.id))}},
        "Mounts": [_mount(mount) for mount in config.mounts],
        "Config": {
            "Hostname": config.hostname,
            "Domainname": config.domainname,
            "User": config.user,
            "AttachStdin": False,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": config.tty,
            "OpenStdin": config.open_stdin,
            "StdinOnce": config.stdin_once,
            "Env": list(config.env),
            "Cmd": list(config.args),
            "Image": config.image_name,
            "Volumes": None,
            "WorkingDir": config.cwd,
            "Entrypoint": None,
            "OnBuild": None,
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
            "StopTimeout": config.stop_grace_ns // SECOND,
            **_health_check(config.healthcheck),
        },
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": config.id if sandbox else "",
            "SandboxKey": str(sandbox.netns or "") if sandbox else "",
            "Ports": _port_map(sandbox),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": first.get("EndpointID", ""),
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "IPv6Gateway": "",
            "Gateway": first.get("Gateway", ""),
            "IPAddress": first.get("IPAddress", ""),
            "IPPrefixLen": first.get("IPPrefixLen", 0),
            "MacAddress": first.get("MacAddress", ""),
            "Networks": networks,
        },
    }


def status_text(state: ContainerState, now: int) -> str:
    """The human text of `docker ps`."""
    match state.status:
        case ContainerStatus.RUNNING | ContainerStatus.PAUSED:
            text = f"Up {duration(now - state.started_at)}"
            if state.status is ContainerStatus.PAUSED:
                return f"{text} (Paused)"
            match state.health.status:
                case HealthStatus.NONE:
                    return text
                case HealthStatus.STARTING:
                    return f"{text} (health: starting)"
                case _:
                    return f"{text} ({state.health.status.value})"
        case ContainerStatus.CREATED:
            return "Created"
        case ContainerStatus.DEAD:
            return "Dead"
        case _:
            return f"Exited ({state.exit_code}) {duration(now - state.finished_at)} ago"


def duration(nanoseconds: int) -> str:
    """A length of time as Docker's CLI words it."""
    seconds = max(0, nanoseconds) // SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes = seconds // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = minutes // 60
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    return f"{days} days" if days < 14 else f"{days // 7} weeks" if days < 61 else f"{days // 30} months"


def _health_check(check: HealthCheck | None) -> dict[str, Any]:
    if check is None:
        return {}
    found = {
        "Test": list(check.test),
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {"Healthcheck": {name: value for name, value in found.items() if value}}


def _state(state: ContainerState) -> dict[str, Any]:
    result: dict[str, Any] = {
        "Status": state.status.value,
        "Running": state.running,
        "Paused": state.status is ContainerStatus.PAUSED,
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is ContainerStatus.DEAD,
        "Pid": state.pid if state.running else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at) if state.started_at else ZERO_TIME,
        "FinishedAt": rfc3339(state.finished_at) if state.finished_at else ZERO_TIME,
    }
    if state.health.status is not HealthStatus.NONE:
        result["Health"] = {
            "Status": state.health.status.value,
            "FailingStreak": state.health.failing_streak,
            "Log": [
                {
                    "Start": rfc3339(probe.start),
                    "End": rfc3339(probe.end),
                    "ExitCode": probe.exit_code,
                    "Output": probe.output,
                }
                for probe in state.health.log
            ],
        }
    return result


def _network_mode(config: ContainerConfig, sandbox: Sandbox | None) -> str:
    if config.netns is None:
        return "host"
    if sandbox is None or not sandbox.addresses:
        return "none"
    return next(iter(sandbox.addresses))


def _networks(engine: Engine, sandbox: Sandbox | None) -> dict[str, dict[str, Any]]:
    if sandbox is None:
        return {}
    return {
        engine.network_name(network_id): _attachment(network_id, address)
        for network_id, address in sandbox.addresses.items()
    }


def _attachment(network_id: str, address: str) -> dict[str, Any]:
    ip, _, length = address.partition("/")
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": mac_for(address),
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network_id,
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": ip,
        "IPPrefixLen": int(length or 0),
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _ports(sandbox: Sandbox | None) -> list[dict[str, Any]]:
    return [
        {
            "IP": port.host_ip or "0.0.0.0",
            "PrivatePort": port.target,
            "PublicPort": port.published,
            "Type": str(port.protocol),
        }
        for port in (sandbox.ports if sandbox else ())
    ]


def _port_map(sandbox: Sandbox | None) -> Mapping[str, Any]:
    result: dict[str, list[dict[str, str]]] = {}
    for port in sandbox.ports if sandbox else ():
        binding = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.published)}
        result.setdefault(f"{port.target}/{port.protocol}", []).append(binding)
    return result


def _mount(mount: MountPoint) -> dict[str, Any]:
    result = {
        "Type": mount.kind.value,
        "Source": str(mount.source or ""),
        "Destination": mount.target,
        "Mode": "",
        "RW": not mount.read_only,
        "Propagation": mount.propagation,
    }
    if mount.volume_name:
        result |= {"Name": mount.volume_name, "Driver": mount.driver or "local"}
    return result
