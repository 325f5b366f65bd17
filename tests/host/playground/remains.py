"""What a playground could leave behind on the machine."""

import os
import subprocess
from pathlib import Path

from shoal.playground import cgroups, processes
from shoal.playground.layout import Layout


def snapshot() -> dict[str, set[str]]:
    """The machine's own devices, named namespaces and nft tables, and the mounts that any playground made.

    Other mounts come and go with whatever else runs on the machine; all of a playground's bear its name.
    """
    mounts = {
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if "shoal-playground" in line or "shoalpg-" in line
    }
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    named = Path("/run/netns")
    return {
        "devices": set(os.listdir("/sys/class/net")),
        "mounts": mounts,
        "netns": set(os.listdir(named)) if named.exists() else set(),
        "tables": set(tables.splitlines()),
    }


def of(directory: Path) -> list[str]:
    """What is left of the playground in `directory`: processes, cgroups, files."""
    layout = Layout(directory)
    left = [f"process {s.pid} ({s.box})" for s in processes.find(layout.directory)]
    left += [f"cgroup {path}" for path in cgroups.remaining(layout.cgroup)]
    left += [f"file {path}" for path in [layout.directory] if path.exists()]
    return left + _processes_in_other_namespaces_with(str(layout.directory))


def _processes_in_other_namespaces_with(text: str) -> list[str]:
    own = os.readlink("/proc/self/ns/pid")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.readlink(entry / "ns/pid") != own and text.encode() in (entry / "cmdline").read_bytes():
                found.append(f"process {entry.name} in another PID namespace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found
