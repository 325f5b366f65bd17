"""What a user asked of a standalone container, as inspect shows it: every key of dockerd's, completed."""

from typing import Any

import msgspec

from worker.containers.record import Record

_LEFT_OUT = ("Mounts", "Tmpfs", "Sysctls", "StorageOpt", "Init", "Annotations")
"""What dockerd leaves out of HostConfig when it is not set."""
_LEFT_OUT_SETTINGS = (
    "ExposedPorts",
    "Healthcheck",
    "NetworkDisabled",
    "MacAddress",
    "StopSignal",
    "StopTimeout",
    "Shell",
)


def asked_host_config(record: Record, runtime: str) -> dict[str, Any]:
    """HostConfig."""
    found: dict[str, Any] = msgspec.to_builtins(record.host)
    for name in _LEFT_OUT:
        if not found[name]:
            del found[name]
    found["Runtime"] = record.host.runtime or runtime
    found["PortBindings"] = _bindings(record)
    return found


def _bindings(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for port, bindings in record.host.port_bindings.items():
        found[port if "/" in port else f"{port}/tcp"] = msgspec.to_builtins(bindings)
    return found


def asked_settings(record: Record) -> dict[str, Any]:
    """Config."""
    found: dict[str, Any] = msgspec.to_builtins(record.settings)
    for name in _LEFT_OUT_SETTINGS:
        if not found[name]:
            del found[name]
    return found
