"""`/_ping`, `/version`, `/info`: what the engine is."""

import platform
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from cluster.engine_json import rfc3339, spec_json
from worker import node
from worker.api.http import API_VERSION, MIN_API_VERSION, add_route, answer
from worker.engine import Engine

SwarmInfo = Callable[[], Awaitable[Mapping[str, Any]]]


def routes(app: web.Application, engine: Engine, swarm: SwarmInfo, ping_header: Callable[[], str]) -> None:
    """Add the handlers. `swarm` gives /info's Swarm part, `ping_header` the Swarm header of /_ping."""

    async def ping(request: web.Request) -> web.Response:
        headers = {
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
            "Builder-Version": "1",
            "Swarm": ping_header(),
        }
        return web.Response(text="" if request.method == "HEAD" else "OK", headers=headers)

    async def version(_: web.Request) -> web.Response:
        return answer(version_json(engine))

    async def info(_: web.Request) -> web.Response:
        return answer(info_json(engine, await swarm()))

    add_route(app, "GET", "/_ping", ping)
    add_route(app, "HEAD", "/_ping", ping)
    add_route(app, "GET", "/version", version)
    add_route(app, "GET", "/info", info)


def version_json(engine: Engine) -> dict[str, Any]:
    """GET /version."""
    own = node.shoal_version()
    details = {
        "ApiVersion": API_VERSION,
        "Arch": node.architecture(),
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"python{platform.python_version()}",
        "KernelVersion": engine.machine.kernel,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "Shoal"},
        "Version": own,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
        "Arch": node.architecture(),
        "KernelVersion": engine.machine.kernel,
        "GoVersion": details["GoVersion"],
        "GitCommit": "",
        "BuildTime": "",
        "Components": [{"Name": "Engine", "Version": own, "Details": details}],
    }


def info_json(engine: Engine, swarm: Mapping[str, Any]) -> dict[str, Any]:
    """GET /info."""
    machine = engine.machine
    states = [state.status.value for _, state in engine.runtime.list()]
    return {
        "ID": engine.id,
        "Name": machine.hostname,
        "ServerVersion": node.shoal_version(),
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "Images": len(engine.images.list()),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlayfs"]],
        "DockerRootDir": str(engine.data_root),
        "Plugins": {
            "Volume": list(node.VOLUME_DRIVERS),
            "Network": list(node.NETWORK_DRIVERS),
            "Authorization": None,
            "Log": list(node.LOG_DRIVERS),
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "OomKillDisable": False,
        "KernelMemoryTCP": False,
        "IPv4Forwarding": True,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": engine.debug,
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "SystemTime": rfc3339(int(datetime.now(UTC).timestamp() * 10**9)),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": machine.cgroup_version,
        "KernelVersion": machine.kernel,
        "OperatingSystem": machine.operating_system,
        "OSVersion": machine.os_version,
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": engine.registry_config,
        "NCPU": machine.cpus,
        "MemTotal": machine.memory,
        "GenericResources": spec_json(engine.generic_resources) or None,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [f"{k}={v}" if v else k for k, v in engine.labels.items()],
        "ExperimentalBuild": False,
        "LiveRestoreEnabled": True,
        "Runtimes": {name: {"path": name} for name in ("crun", "runc")},
        "DefaultRuntime": engine.default_runtime,
        "Swarm": dict(swarm),
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": ""},
        "CDISpecDirs": [],
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "Warnings": swarm.get("Warnings"),
    }
