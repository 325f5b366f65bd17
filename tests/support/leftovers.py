"""What the test suite may not leave behind: namespaces, mounts, cgroups, devices, nft tables, processes."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROCESSES = (
    "conmon",
    "crun",
    "shoald",
    "shoal.playground",
    "-m manager",
    "docker-registry",
    "nginx",
    "wireguard-go",
)


class Leftovers(NamedTuple):
    """Everything of the kinds that Shoal makes, as words that say what it is."""

    found: frozenset[str]

    @classmethod
    def find(cls) -> "Leftovers":
        """Look at the machine."""
        return cls(
            frozenset((*_namespaces(), *_mounts(), *_cgroups(), *_devices(), *_tables(), *_processes()))
        )

    def beyond(self, earlier: "Leftovers") -> list[str]:
        """What was not there earlier."""
        return sorted(self.found - earlier.found)


def _namespaces() -> Iterator[str]:
    """Network namespaces that a process or a mount holds, other than our own."""
    own = os.stat("/proc/self/ns/net").st_ino
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inode = (process / "ns/net").stat().st_ino
        except OSError:
            continue
        if inode != own:
            yield f"network namespace {inode}"
    yield from (f"named namespace {path.name}" for path in Path("/run/netns").glob("*"))


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield f"mount {line.split()[4]}"


def _cgroups() -> Iterator[str]:
    root = Path("/sys/fs/cgroup")
    for name in ("shoal*", "*/shoal*"):
        yield from (f"cgroup {path}" for path in root.glob(name))


def _devices() -> Iterator[str]:
    links = json.loads(subprocess.check_output(["ip", "-j", "link"]))
    yield from (f"device {link['ifname']}" for link in links)


def _tables() -> Iterator[str]:
    listed = subprocess.check_output(["nft", "list", "tables"], text=True)
    yield from (f"nft {line}" for line in listed.splitlines())


def _processes() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(word in command for word in _PROCESSES) and "pytest" not in command:
            yield f"process {process.name}: {command[:80]}"
