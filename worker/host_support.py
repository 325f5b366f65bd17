"""What this machine's kernel can do for containers, as GET /info tells it. Some of it changes."""

from pathlib import Path

from worker.runtime import apparmor

_V1 = Path("/sys/fs/cgroup")
_SYSCTL = Path("/proc/sys")


def cgroup_support(version: str) -> dict[str, bool]:
    """The limits that can be set, by the names of GET /info."""
    if version == "2":
        try:
            controllers = set((_V1 / "cgroup.controllers").read_text().split())
        except OSError:
            controllers = set()
        return {
            "MemoryLimit": "memory" in controllers,
            "SwapLimit": "memory" in controllers and any(_V1.glob("*/memory.swap.max")),
            "CpuCfsPeriod": "cpu" in controllers,
            "CpuCfsQuota": "cpu" in controllers,
            "CPUShares": "cpu" in controllers,
            "CPUSet": "cpuset" in controllers,
            "PidsLimit": "pids" in controllers,
            "OomKillDisable": False,
            "KernelMemoryTCP": False,
        }
    return {
        "MemoryLimit": (_V1 / "memory/memory.limit_in_bytes").exists(),
        "SwapLimit": (_V1 / "memory/memory.memsw.limit_in_bytes").exists(),
        "CpuCfsPeriod": (_V1 / "cpu/cpu.cfs_period_us").exists(),
        "CpuCfsQuota": (_V1 / "cpu/cpu.cfs_quota_us").exists(),
        "CPUShares": (_V1 / "cpu/cpu.shares").exists(),
        "CPUSet": (_V1 / "cpuset/cpuset.cpus").exists(),
        "PidsLimit": (_V1 / "pids/cgroup.procs").exists(),
        "OomKillDisable": (_V1 / "memory/memory.oom_control").exists(),
        "KernelMemoryTCP": (_V1 / "memory/memory.kmem.tcp.limit_in_bytes").exists(),
    }


def network_support() -> dict[str, bool]:
    """Switches of the network that users look at when packets don't pass."""
    return {
        "IPv4Forwarding": _on("net/ipv4/ip_forward"),
        "BridgeNfIptables": _on("net/bridge/bridge-nf-call-iptables"),
        "BridgeNfIp6tables": _on("net/bridge/bridge-nf-call-ip6tables"),
    }


def warnings(support: dict[str, bool], version: str) -> list[str]:
    """dockerd's words for what is missing."""
    said = [
        ("MemoryLimit", "No memory limit support"),
        ("SwapLimit", "No swap limit support"),
        ("CpuCfsPeriod", "No cpu cfs period support"),
        ("CpuCfsQuota", "No cpu cfs quota support"),
        ("CPUShares", "No cpu shares support"),
        ("CPUSet", "No cpuset support"),
        ("PidsLimit", "No pids limit support"),
        ("IPv4Forwarding", "IPv4 forwarding is disabled"),
    ]
    if version == "1":
        said.append(("OomKillDisable", "No oom kill disable support"))
    return [f"WARNING: {text}" for name, text in said if not support[name]]


def security_options(version: str) -> list[str]:
    """How containers are confined by default."""
    found = ["name=seccomp,profile=builtin"]
    if apparmor.supported():
        found.insert(0, "name=apparmor")
    if version == "2":
        found.append("name=cgroupns")
    return found


def open_files() -> int:
    """How many files this process has open."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0


def backing_filesystem(path: Path) -> str:
    """The kind of file system that holds a path (Linux's word); "" if that can't be told."""
    best, kind = "", ""
    try:
        text = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        place = before.split()[4]
        if len(place) >= len(best) and path.is_relative_to(place):
            best, kind = place, after.split()[0]
    return kind


def _on(name: str) -> bool:
    return _text(_SYSCTL / name) == "1"


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
