"""Looking at the machine. Features are tried out, in namespaces that are gone when the trial ends."""

import ctypes.util
import errno
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

from cluster.errors import InvalidArgument
from manager import landlock

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24}
"""Those that Shoal uses by name, with their numbers in <linux/capability.h>."""

_NFT_NAT = """table ip doctor {
 map backends { type ipv4_addr : verdict; }
 chain one { dnat to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }; }
 chain out { type nat hook output priority -100; ip daddr vmap @backends; }
 chain post { type nat hook postrouting priority 100; masquerade; }
}
"""
_NFT_NAT6 = "table ip6 doctor { chain post { type nat hook postrouting priority 100; masquerade; }; }\n"
_SCTP = """import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
except OSError as error:
    raise SystemExit(error.strerror)
"""
_NFT_BRIDGE = "table bridge doctor { chain forward { type filter hook forward priority 0; drop; }; }\n"

FEATURES: dict[str, tuple[list[str], str]] = {
    "bridge": (["ip", "link", "add", "doctor0", "type", "bridge"], ""),
    "veth": (["ip", "link", "add", "doctor0", "type", "veth", "peer", "name", "doctor1"], ""),
    "vxlan": (["ip", "link", "add", "doctor0", "type", "vxlan", "id", "7", "dstport", "4789"], ""),
    "macvlan": (
        ["sh", "-c", "ip link add d0 type veth peer name d1 && ip link add m0 link d0 type macvlan"],
        "",
    ),
    "ipvlan": (
        ["sh", "-c", "ip link add d0 type veth peer name d1 && ip link add i0 link d0 type ipvlan"],
        "",
    ),
    "vlan": (
        ["sh", "-c", "ip link add d0 type veth peer name d1 && ip link add v0 link d0 type vlan id 7"],
        "",
    ),
    "wireguard": (["ip", "link", "add", "doctor0", "type", "wireguard"], ""),
    "sctp": ([sys.executable, "-c", _SCTP], ""),
    "nat of IPv6": (["nft", "-f", "-"], _NFT_NAT6),
    "nat": (["nft", "-f", "-"], _NFT_NAT),
    "bridge filter": (["nft", "-f", "-"], _NFT_BRIDGE),
    "eBPF at connect()": ([sys.executable, "-m", "netplane.bpf"], ""),
    "conntrack": (["test", "-e", "/proc/sys/net/netfilter/nf_conntrack_max"], ""),
    "overlayfs": (
        [
            "sh",
            "-ec",
            "mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir l u w m; "
            "mount -t overlay overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w /mnt/m",
        ],
        "",
    ),
}
"""For each feature, the command that works only where the kernel has it, and what it reads."""


class ManagerSeen(NamedTuple):
    """A manager process that runs on the machine."""

    pid: int
    uid: int
    capabilities: int
    """All that it has or could gain, as a set of bits."""


class Probe(Protocol):
    """What the checks ask of a machine."""

    def root(self) -> bool:
        """Whether we may look at all: most trials need root."""

    def capabilities(self) -> frozenset[str]:
        """Which of CAPABILITIES we have."""

    def feature(self, name: str) -> str | None:
        """Try one of FEATURES: None when it works, else what the kernel or the tool says."""

    def cgroups(self) -> tuple[str, frozenset[str]]:
        """The cgroup mode, `v1`, `v2`, `hybrid` or `none`, and the controllers there are."""

    def seccomp(self) -> bool:
        """Whether the kernel filters system calls."""

    def landlock(self) -> bool:
        """Whether a process can be kept to some files (landlock(7))."""

    def managers(self) -> list[ManagerSeen]:
        """The manager processes that run."""

    def program(self, name: str) -> str | None:
        """The program's path, or None."""

    def library(self, name: str) -> bool:
        """Whether the shared library is there, by its name without `lib` and `.so`."""

    def module(self, name: str) -> bool:
        """Whether the Python module can be imported."""

    def port_taken(self, protocol: str, port: int) -> bool:
        """Whether something listens on the port, `tcp` or `udp`."""

    def free_bytes(self, path: Path) -> int:
        """Free space where the path is, or would be made."""

    def clock_synchronised(self) -> bool | None:
        """Whether the kernel's clock is kept right; None when that can't be told."""

    def kernel(self) -> tuple[int, int]:
        """The kernel's version, its first two numbers."""

    def legacy_iptables(self) -> bool:
        """Whether rules of the old iptables are loaded, which nftables does not see."""


class Machine:
    """This machine."""

    def root(self) -> bool:
        """See Probe."""
        return os.geteuid() == 0

    def capabilities(self) -> frozenset[str]:
        """See Probe."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                held = int(line.split()[1], 16)
                return frozenset(name for name, bit in CAPABILITIES.items() if held >> bit & 1)
        return frozenset()

    def feature(self, name: str) -> str | None:
        """See Probe."""
        command, script = FEATURES[name]
        try:
            done = subprocess.run(
                ["unshare", "--net", "--mount", "--", *command],
                input=script,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0:
            return None
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]

    def cgroups(self) -> tuple[str, frozenset[str]]:
        """See Probe."""
        controllers: set[str] = set()
        kinds: set[str] = set()
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(maxsplit=2)
            if kind == "cgroup":
                kinds.add("v1")
                controllers |= set(options.split(","))
            elif kind == "cgroup2":
                kinds.add("v2")
                controllers |= set(Path(left.split()[4], "cgroup.controllers").read_text().split())
        mode = "hybrid" if len(kinds) > 1 else next(iter(kinds), "none")
        return mode, frozenset(controllers)

    def seccomp(self) -> bool:
        """See Probe."""
        return Path("/proc/sys/kernel/seccomp/actions_avail").exists()

    def landlock(self) -> bool:
        """See Probe."""
        return landlock.version() > 0

    def managers(self) -> list[ManagerSeen]:
        """See Probe."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                if not process.name.isdigit() or b"-m\0manager\0" not in (process / "cmdline").read_bytes():
                    continue
                lines = (line.partition(":") for line in (process / "status").read_text().splitlines())
            except OSError:  # it has ended
                continue
            status = {name: value.split() for name, _, value in lines}
            held = 0
            for name in ("CapPrm", "CapInh", "CapBnd", "CapAmb"):
                held |= int(status[name][0], 16)
            found.append(ManagerSeen(int(process.name), int(status["Uid"][0]), held))
        return found

    def program(self, name: str) -> str | None:
        """See Probe."""
        return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

    def library(self, name: str) -> bool:
        """See Probe."""
        return ctypes.util.find_library(name) is not None

    def module(self, name: str) -> bool:
        """See Probe."""
        return importlib.util.find_spec(name) is not None

    def port_taken(self, protocol: str, port: int) -> bool:
        """See Probe.

        Raises:
            InvalidArgument: the protocol is neither tcp nor udp.
        """
        if protocol not in ("tcp", "udp"):
            raise InvalidArgument(f"protocol {protocol!r} is neither tcp nor udp")
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as trial:
            if protocol == "tcp":
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("0.0.0.0", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
                raise
        return False

    def free_bytes(self, path: Path) -> int:
        """See Probe."""
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free

    def clock_synchronised(self) -> bool | None:
        """See Probe. timedatectl(1) reports the kernel's own flag (adjtimex(2), STA_UNSYNC)."""
        if not (program := self.program("timedatectl")):
            return None
        done = subprocess.run(
            [program, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return {"yes": True, "no": False}.get(done.stdout.strip())

    def kernel(self) -> tuple[int, int]:
        """See Probe."""
        major, minor, *_ = platform.release().split(".")
        return int(major), int("".join(c for c in minor if c.isdigit()) or 0)

    def legacy_iptables(self) -> bool:
        """See Probe."""
        names = Path("/proc/net/ip_tables_names")
        return names.exists() and os.access(names, os.R_OK) and bool(names.read_text().strip())
