"""`/version` and `/info`: what the engine is, and what its machine can do."""

import asyncio
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from cluster.engine_json import rfc3339, spec_json
from worker import host_support, node
from worker.api.http import API_VERSION, MIN_API_VERSION
from worker.engine import Engine
from worker.programs import Program, Programs

_FILESYSTEMS = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "overlay": "overlayfs"}
"""dockerd's names."""


def version_json(engine: Engine, programs: Programs) -> dict[str, Any]:
    """GET /version."""
    own = node.shoal_version()
    details = {
        "ApiVersion": API_VERSION,
        "Arch": node.architecture(),
        "BuildTime": node.build_time(),
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"python{platform.python_version()}",
        "KernelVersion": engine.machine.kernel,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
    }
    others = [*programs.runtimes.values(), programs.monitor, programs.init]
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
        "BuildTime": details["BuildTime"],
        "Components": [
            {"Name": "Engine", "Version": own, "Details": details},
            *(
                {"Name": each.name, "Version": each.version, "Details": {"GitCommit": each.commit}}
                for each in others
                if each is not None
            ),
        ],
    }


def info_json(engine: Engine, swarm: Mapping[str, Any], programs: Programs) -> dict[str, Any]:
    """GET /info."""
    machine = engine.machine
    states = [state.status.value for _, state in engine.runtime.list()]
    cgroups = host_support.cgroup_support(machine.cgroup_version)
    support = {**cgroups, **host_support.network_support()}
    runtime = programs.runtimes.get(engine.default_runtime)
    warnings = [
        *(swarm.get("Warnings") or ()),
        *host_support.warnings(support, machine.cgroup_version),
    ]
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
        "DriverStatus": _driver_status(engine),
        "DockerRootDir": str(engine.data_root),
        "Plugins": {
            "Volume": list(node.VOLUME_DRIVERS),
            "Network": list(node.NETWORK_DRIVERS),
            "Authorization": None,
            "Log": list(node.log_drivers()),
        },
        **support,
        "Debug": engine.debug,
        "NFd": host_support.open_files(),
        "NGoroutines": len(asyncio.all_tasks()),
        "NEventsListener": engine.events.listeners,
        "SystemTime": rfc3339(int(datetime.now(UTC).timestamp() * 10**9)),
        "LoggingDriver": engine.runtime.default_log.driver,
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
        "HttpProxy": proxy("HTTP_PROXY"),
        "HttpsProxy": proxy("HTTPS_PROXY"),
        "NoProxy": proxy("NO_PROXY"),
        "Labels": [f"{k}={v}" if v else k for k, v in engine.labels.items()],
        "ExperimentalBuild": False,
        "LiveRestoreEnabled": True,
        "Runtimes": {name: _runtime(program) for name, program in programs.runtimes.items()},
        "DefaultRuntime": engine.default_runtime,
        "Swarm": dict(swarm),
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": _version(programs.monitor)},
        "RuncCommit": {"ID": _version(runtime), "Expected": _version(runtime)},
        "InitCommit": {"ID": _version(programs.init)},
        "CDISpecDirs": [],
        "SecurityOptions": host_support.security_options(machine.cgroup_version),
        "FirewallBackend": {"Driver": "nftables"},
        "Warnings": warnings or None,
    }


def proxy(name: str, environment: Mapping[str, str] | None = None) -> str:
    """A proxy setting of this process, without the credentials that may be in it."""
    variables = os.environ if environment is None else environment
    text = variables.get(name) or variables.get(name.lower(), "")
    parts = urlsplit(text)
    if "@" not in parts.netloc:
        return text
    return urlunsplit(parts._replace(netloc="xxxxx:xxxxx@" + parts.netloc.rpartition("@")[2]))


def _version(program: Program | None) -> str:
    """Which program it is: Shoal's are not the ones that the field is named after."""
    if program is None:
        return ""
    return f"{program.name} {program.version}" + (f" ({program.commit})" if program.commit else "")


def _runtime(program: Program) -> dict[str, Any]:
    shown: dict[str, Any] = {"path": program.name}
    if program.features is not None:
        shown["status"] = {"org.opencontainers.runtime-spec.features": json.dumps(program.features)}
    return shown


def _driver_status(engine: Engine) -> list[list[str]]:
    kind = host_support.backing_filesystem(engine.data_root)
    return [
        ["Backing Filesystem", _FILESYSTEMS.get(kind, kind or "unknown")],
        ["Supports d_type", "true"],
        ["Using metacopy", "false"],
        ["Native Overlay Diff", "true"],
        ["userxattr", "false"],
    ]
