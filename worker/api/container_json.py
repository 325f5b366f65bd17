"""Containers in the Engine API's JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cluster.dataplane import mac_for
from cluster.engine_json import rfc3339
from cluster.network_details import endpoint_id
from cluster.seams import SECOND
from netplane.model import HostPort, Sandbox
from worker.api.asked import asked_host_config, asked_settings
from worker.api.host_config import host_config
from worker.containers.record import Record, record_of
from worker.endpoints import EndpointSettings
from worker.engine import Engine
from worker.runtime.model import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    HealthCheck,
    HealthStatus,
    MountKind,
    MountPoint,
)

ZERO_TIME = "0001-01-01T00:00:00Z"


def container_summary(
    engine: Engine, config: ContainerConfig, state: ContainerState, now: int, *, restarting: bool = False
) -> dict[str, Any]:
    """An entry of GET /containers/json."""
    sandbox = engine.network.sandboxes().get(config.id)
    record = record_of(config)
    return {
        "Id": config.id,
        "Names": [f"/{config.name}"],
        "Image": config.image_name,
        "ImageID": config.image_id,
        "Command": " ".join(config.args),
        "Created": config.created_at // SECOND,
        "Ports": _ports(sandbox, record),
        "Labels": config.labels,
        "State": "restarting" if restarting else state.status.value,
        "Status": status_text(state, now, restarting=restarting),
        "HostConfig": {"NetworkMode": record.host.network_mode if record else _network_mode(config, sandbox)},
        "NetworkSettings": {"Networks": _listed(container_networks(engine, config, sandbox))},
        "Mounts": [_mount(mount) for mount in config.mounts],
    }


def inspect_json(
    engine: Engine,
    config: ContainerConfig,
    state: ContainerState,
    *,
    restarting: bool = False,
    execs: Sequence[str] = (),
) -> dict[str, Any]:
    """GET /containers/{id}/json."""
    sandbox = engine.network.sandboxes().get(config.id)
    networks = container_networks(engine, config, sandbox)
    first = next(iter(networks.values()), {}) if len(networks) == 1 else networks.get("bridge", {})
    etc = engine.runtime.etc(config.id)
    record = record_of(config)
    return {
        "Id": config.id,
        "Created": rfc3339(config.created_at),
        "Path": config.args[0],
        "Args": list(config.args[1:]),
        "State": _state(state, restarting=restarting),
        "Image": config.image_id,
        "ResolvConfPath": str(etc / "resolv.conf"),
        "HostnamePath": str(etc / "hostname"),
        "HostsPath": str(etc / "hosts"),
        "LogPath": str(engine.log_path(config.id)),
        "Name": f"/{config.name}",
        "RestartCount": state.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": config.apparmor_profile,
        "ExecIDs": list(execs) or None,
        "HostConfig": _host_config(engine, config, sandbox, record),
        "GraphDriver": {
            "Name": "overlay2",
            "Data": {
                "ID": config.id,
                "LowerDir": ":".join(str(layer) for layer in reversed(config.layers)),
                "MergedDir": str(engine.runtime.rootfs(config.id)),
                "UpperDir": str(engine.runtime.upper(config.id)),
                "WorkDir": str(engine.runtime.upper(config.id).with_name("work")),
            },
        },
        "Mounts": [_mount(mount) for mount in config.mounts],
        "Config": asked_settings(record) if record else _task_settings(config),
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": config.id if sandbox else "",
            "SandboxKey": str(sandbox.netns or "") if sandbox else "",
            "Ports": _port_map(sandbox, record if state.running else None),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": first.get("EndpointID", ""),
            "GlobalIPv6Address": first.get("GlobalIPv6Address", ""),
            "GlobalIPv6PrefixLen": first.get("GlobalIPv6PrefixLen", 0),
            "IPv6Gateway": first.get("IPv6Gateway", ""),
            "Gateway": first.get("Gateway", ""),
            "IPAddress": first.get("IPAddress", ""),
            "IPPrefixLen": first.get("IPPrefixLen", 0),
            "MacAddress": first.get("MacAddress", ""),
            "Networks": networks,
        },
    }


def _host_config(
    engine: Engine, config: ContainerConfig, sandbox: Sandbox | None, record: Record | None
) -> dict[str, Any]:
    if record is not None:
        return asked_host_config(record, engine.default_runtime)
    mode = _network_mode(config, sandbox)
    return host_config(config, engine.default_runtime, mode, _port_map(sandbox, None))


def _task_settings(config: ContainerConfig) -> dict[str, Any]:
    return {
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
    }


def status_text(state: ContainerState, now: int, *, restarting: bool = False) -> str:
    """The human text of `docker ps`."""
    if restarting:
        return f"Restarting ({state.exit_code}) {duration(now - state.finished_at)} ago"
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


def _state(state: ContainerState, *, restarting: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "Status": "restarting" if restarting else state.status.value,
        "Running": state.running or restarting,
        "Paused": state.status is ContainerStatus.PAUSED,
        "Restarting": restarting,
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


def container_networks(
    engine: Engine, config: ContainerConfig, sandbox: Sandbox | None
) -> dict[str, dict[str, Any]]:
    """A container's networks by name: those that it is in, or will be in when it starts."""
    record = record_of(config)
    asked = {engine.network_id(name): wanted for name, wanted in record.endpoints.items()} if record else {}
    found = {}
    joined = sandbox.addresses if sandbox else {}
    for network_id in dict.fromkeys((*asked, *joined)):
        wanted = asked.get(network_id, EndpointSettings())
        place = _place(sandbox, network_id) if sandbox and network_id in joined else {}
        found[engine.network_name(network_id)] = _endpoint(config, network_id, wanted, place)
    if record is not None and not found and record.host.network_mode in ("host", "none"):
        network_id = engine.network_id(record.host.network_mode)
        found[record.host.network_mode] = _endpoint(config, network_id, EndpointSettings(), {})
    return found


def _listed(networks: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Lists leave names out, as dockerd's do."""
    return {
        name: {**endpoint, "Aliases": None, "DNSNames": None, "IPAMConfig": None}
        for name, endpoint in networks.items()
    }


def _place(sandbox: Sandbox, network_id: str) -> dict[str, Any]:
    address, _, length = sandbox.addresses[network_id].partition("/")
    address6, _, length6 = sandbox.addresses6.get(network_id, "").partition("/")
    return {
        "EndpointID": endpoint_id(sandbox.id, network_id),
        "Gateway": sandbox.gateways.get(network_id, ""),
        "IPAddress": address,
        "IPPrefixLen": int(length or 0),
        "MacAddress": sandbox.macs.get(network_id) or mac_for(address),
        "IPv6Gateway": sandbox.gateways6.get(network_id, ""),
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": int(length6 or 0),
    }


def _endpoint(
    config: ContainerConfig, network_id: str, wanted: EndpointSettings, place: Mapping[str, Any]
) -> dict[str, Any]:
    aliases = list(wanted.aliases or ())
    names = dict.fromkeys((config.name, *aliases, config.id[:12])) if place else {}
    ipam = wanted.ipam_config
    return {
        "IPAMConfig": msgspec.to_builtins(ipam) if ipam is not None else None,
        "Links": list(wanted.links) if wanted.links else None,
        "Aliases": aliases or None,
        "MacAddress": wanted.mac_address or "",
        "DriverOpts": wanted.driver_opts,
        "GwPriority": wanted.gw_priority,
        "NetworkID": network_id if place else "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": list(names) or None,
        **place,
    }


def _ports(sandbox: Sandbox | None, record: Record | None) -> list[dict[str, Any]]:
    published: list[dict[str, Any]] = [
        {"PrivatePort": port.target, "Type": str(port.protocol)}
        if port.direct
        else {
            "IP": address,
            "PrivatePort": port.target,
            "PublicPort": port.published,
            "Type": str(port.protocol),
        }
        for port in (sandbox.ports if sandbox else ())
        for address in _open_at(sandbox, port)
    ]
    taken = {(port["PrivatePort"], port["Type"]) for port in published}
    if sandbox is not None and record is not None:
        for text in record.settings.exposed_ports or {}:
            number, _, protocol = text.partition("/")
            if number.isdigit() and (int(number), protocol or "tcp") not in taken:
                published.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return published


def _open_at(sandbox: Sandbox | None, port: HostPort) -> Sequence[str]:
    """The addresses of this host at which a port is open, as dockerd tells them."""
    if port.host_ip or sandbox is None:
        return (port.host_ip or "0.0.0.0",)
    four = ("0.0.0.0",) if any(sandbox.addresses.values()) else ()
    six = ("::",) if sandbox.addresses6 else ()
    return (*four, *six) or ("0.0.0.0",)


def _port_map(sandbox: Sandbox | None, record: Record | None) -> Mapping[str, Any]:
    result: dict[str, list[dict[str, str]] | None] = {}
    for text in (record.settings.exposed_ports or {}) if record else ():
        result[text if "/" in text else f"{text}/tcp"] = None
    for port in sandbox.ports if sandbox else ():
        number = "" if port.direct else str(port.published)
        bindings = result.get(f"{port.target}/{port.protocol}") or []
        more = [{"HostIp": address, "HostPort": number} for address in _open_at(sandbox, port)]
        result[f"{port.target}/{port.protocol}"] = [*bindings, *more]
    return result


def _mount(mount: MountPoint) -> dict[str, Any]:
    result = {
        "Type": mount.kind.value,
        "Source": str(mount.source or ""),
        "Destination": mount.target,
        "Mode": "",
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if mount.kind is MountKind.BIND else ""),
    }
    if mount.volume_name:
        result |= {"Name": mount.volume_name, "Driver": mount.driver or "local"}
    return result
