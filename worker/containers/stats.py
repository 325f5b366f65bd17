"""What a container uses (`docker stats`): its control groups and interfaces, read as dockerd shows them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.runtime.cgroups import ROOT, Cgroups

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_BLKIO = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip
_NETWORK = (
    ("rx_bytes", 0), ("rx_packets", 1), ("rx_errors", 2), ("rx_dropped", 3),
    ("tx_bytes", 8), ("tx_packets", 9), ("tx_errors", 10), ("tx_dropped", 11),
)  # fmt: skip
_UNLIMITED = 1 << 62


def usage(cgroups: Cgroups, path: str, pid: int, cpus: int, total_memory: int) -> dict[str, Any]:
    """One sample of a running container."""
    read = _unified if cgroups.unified else _version_1
    found = read(path.lstrip("/"), cpus, total_memory)
    found["cpu_stats"] |= {"system_cpu_usage": _system_cpu(), "online_cpus": cpus}
    found["networks"] = _networks(pid)
    return found


def nothing() -> dict[str, Any]:
    """The sample of a container that does not run."""
    return {
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLKIO),
        "cpu_stats": no_cpu(),
        "memory_stats": {},
    }


def no_cpu() -> dict[str, Any]:
    """CPU usage before the first sample."""
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def _unified(path: str, cpus: int, total_memory: int) -> dict[str, Any]:
    base = ROOT / path
    cpu = _pairs(base / "cpu.stat")
    memory = _pairs(base / "memory.stat")
    return {
        "pids_stats": {"current": _number(base / "pids.current"), "limit": _limit(base / "pids.max", 0)},
        "blkio_stats": dict.fromkeys(_BLKIO) | {"io_service_bytes_recursive": _io_unified(base / "io.stat")},
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": cpu.get("usage_usec", 0) * 1000,
                "usage_in_kernelmode": cpu.get("system_usec", 0) * 1000,
                "usage_in_usermode": cpu.get("user_usec", 0) * 1000,
            },
            "throttling_data": {
                "periods": cpu.get("nr_periods", 0),
                "throttled_periods": cpu.get("nr_throttled", 0),
                "throttled_time": cpu.get("throttled_usec", 0) * 1000,
            },
        },
        "memory_stats": {
            "usage": _number(base / "memory.current"),
            "stats": memory,
            "limit": _limit(base / "memory.max", total_memory),
        },
    }


def _io_unified(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in _text(path).splitlines():
        device, *fields = line.split()
        major, _, minor = device.partition(":")
        values = dict(field.split("=", 1) for field in fields if "=" in field)
        for operation, key in (("read", "rbytes"), ("write", "wbytes")):
            if key in values:
                found.append(
                    {"major": int(major), "minor": int(minor), "op": operation, "value": int(values[key])}
                )
    return found


def _version_1(path: str, cpus: int, total_memory: int) -> dict[str, Any]:
    accounting, memory = _v1("cpuacct", path), _v1("memory", path)
    pids, block = _v1("pids", path), _v1("blkio", path)
    used = _pairs(accounting / "cpuacct.stat")
    throttled = _pairs(_v1("cpu", path) / "cpu.stat")
    each = [int(text) for text in _text(accounting / "cpuacct.usage_percpu").split()]
    return {
        "pids_stats": {"current": _number(pids / "pids.current"), "limit": _limit(pids / "pids.max", 0)},
        "blkio_stats": {name: [] for name in _BLKIO}
        | {
            "io_service_bytes_recursive": _io_v1(block / "blkio.throttle.io_service_bytes_recursive"),
            "io_serviced_recursive": _io_v1(block / "blkio.throttle.io_serviced_recursive"),
        },
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": _number(accounting / "cpuacct.usage"),
                "percpu_usage": each[:cpus],
                "usage_in_kernelmode": used.get("system", 0) * _TICK,
                "usage_in_usermode": used.get("user", 0) * _TICK,
            },
            "throttling_data": {
                "periods": throttled.get("nr_periods", 0),
                "throttled_periods": throttled.get("nr_throttled", 0),
                "throttled_time": throttled.get("throttled_time", 0),
            },
        },
        "memory_stats": {
            "usage": _number(memory / "memory.usage_in_bytes"),
            "max_usage": _number(memory / "memory.max_usage_in_bytes"),
            "stats": _pairs(memory / "memory.stat"),
            "limit": _limit(memory / "memory.limit_in_bytes", total_memory),
        },
    }


def _v1(controller: str, path: str) -> Path:
    return ROOT / controller / path


def _io_v1(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in _text(path).splitlines():
        fields = line.split()
        if len(fields) == 3:
            major, _, minor = fields[0].partition(":")
            found.append({"major": int(major), "minor": int(minor), "op": fields[1], "value": int(fields[2])})
    return found


def _networks(pid: int) -> dict[str, dict[str, int]]:
    """The interfaces in a process's network, but for its loopback."""
    found: dict[str, dict[str, int]] = {}
    for line in _text(Path(f"/proc/{pid}/net/dev")).splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(text) for text in rest.split()]
        if name.strip() != "lo" and len(numbers) >= 16:
            found[name.strip()] = {key: numbers[index] for key, index in _NETWORK}
    return found


def _system_cpu() -> int:
    """All CPUs' time since the start of the machine, in ns; idle time too."""
    fields = _text(Path("/proc/stat")).partition("\n")[0].split()[1:8]
    return sum(int(text) for text in fields) * _TICK


def _pairs(path: Path) -> Mapping[str, int]:
    found = {}
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _limit(path: Path, none: int) -> int:
    text = _text(path).strip()
    value = int(text) if text.isdigit() else _UNLIMITED
    return none if value >= _UNLIMITED or (none and value > none) else value


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # the controller is not there, or the container has just ended
