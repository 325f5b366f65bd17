"""What this machine is: platform, resources, kernel. Read once; none of it changes while the daemon runs."""

import functools
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cluster.log_options import DRIVERS
from cluster.objects import EngineDescription, NodeDescription
from cluster.spec import GenericResource, Platform, Resources
from netplane import drivers
from worker.logs import journald

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
NETWORK_DRIVERS = tuple(drivers.DRIVERS)
VOLUME_DRIVERS = ("local",)


def log_drivers() -> tuple[str, ...]:
    """The log drivers that containers here may have."""
    return tuple(name for name in DRIVERS if name != "journald" or journald.available())


@functools.cache
def shoal_version() -> str:
    """Shoal's own version."""
    return version("shoal")


@functools.cache
def build_time() -> str:
    """When this copy of Shoal was put here, in RFC 3339."""
    moment = datetime.fromtimestamp(int(Path(__file__).stat().st_mtime), UTC)
    return moment.isoformat().replace("+00:00", "Z")


def architecture() -> str:
    """This machine's architecture in Go's words (amd64, arm64)."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


@dataclass(frozen=True)
class Machine:
    """Facts of the machine. Memory in bytes."""

    hostname: str
    cpus: int
    memory: int
    kernel: str
    operating_system: str
    os_version: str
    cgroup_version: str

    @classmethod
    def read(cls) -> "Machine":
        """Ask the running system."""
        release = _os_release()
        return cls(
            hostname=platform.node(),
            cpus=len(os.sched_getaffinity(0)),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            kernel=platform.release(),
            operating_system=release.get("PRETTY_NAME", "Linux"),
            os_version=release.get("VERSION_ID", ""),
            cgroup_version="2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "1",
        )

    def describe(
        self, labels: dict[str, str], generic_resources: Sequence[GenericResource] = ()
    ) -> NodeDescription:
        """The node's description for the managers."""
        plugins = (
            *(("Network", name) for name in NETWORK_DRIVERS),
            *(("Volume", name) for name in VOLUME_DRIVERS),
            *(("Log", name) for name in log_drivers()),
        )
        return NodeDescription(
            hostname=self.hostname,
            platform=Platform(architecture=platform.machine(), os="linux"),
            resources=Resources(
                nano_cpus=self.cpus * 10**9,
                memory_bytes=self.memory,
                generic_resources=list(generic_resources) or None,
            ),
            engine=EngineDescription(version=shoal_version(), labels=labels, plugins=plugins),
        )


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
