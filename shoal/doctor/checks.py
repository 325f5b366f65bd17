"""The checks: functions of a Probe, each with what a lack costs and how to mend it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shoal.doctor.probe import Probe

_GIB = 2**30
_DATA_ROOT = Path("/var/lib/shoal")


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Shoal runs, without something that a user may want."""
    MISSING = "missing"
    """Shoal does not run, or not its main parts."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    area: str
    subject: str
    level: Level
    detail: str = ""
    cost: str = ""
    """What does not work because of it."""
    remedy: str = ""
    """What to do about it."""


@dataclass(frozen=True)
class _Need:
    name: str
    required: bool
    cost: str
    remedy: str


_FEATURES = (
    _Need(
        "overlayfs",
        True,
        "no container can start",
        "use a kernel with CONFIG_OVERLAY_FS (`modprobe overlay`)",
    ),
    _Need(
        "bridge", True, "no container networks", "`modprobe bridge`; on minimal kernels install the full one"
    ),
    _Need("veth", True, "no container networks", "`modprobe veth`; on minimal kernels install the full one"),
    _Need("vxlan", True, "no overlay networks, so services can't talk across hosts", "`modprobe vxlan`"),
    _Need(
        "nat",
        True,
        "no published ports, service addresses or way out",
        "`apt install nftables`; `modprobe nft_nat`",
    ),
    _Need("conntrack", True, "no published ports or service addresses", "`modprobe nf_conntrack`"),
    _Need(
        "eBPF at connect()",
        False,
        "new TCP connections to service addresses are led by nftables alone, which costs a little more",
        "use a kernel from 5.14 with CONFIG_CGROUP_BPF, and mount cgroup2",
    ),
    _Need(
        "bridge filter",
        False,
        "what containers send is not checked for addresses of others; the playground can't make partitions",
        "`modprobe nf_tables_bridge`",
    ),
    _Need("nat of IPv6", False, "no published ports or way out by IPv6", "`modprobe nft_chain_nat`"),
    _Need("macvlan", False, "no macvlan networks", "`modprobe macvlan`"),
    _Need("ipvlan", False, "no ipvlan networks", "`modprobe ipvlan`"),
    _Need(
        "vlan", False, "macvlan and ipvlan networks can't be on a VLAN (parent eth0.7)", "`modprobe 8021q`"
    ),
    _Need(
        "sctp",
        False,
        "containers can't speak SCTP, so publishing its ports is of no use",
        "`modprobe sctp` (where it is blocked, see /etc/modprobe.d), or install the full kernel",
    ),
)

_PROGRAMS = (
    _Need("conmon", True, "no container can start", "`apt install conmon`"),
    _Need("ip", True, "neither networks nor the playground can be made", "`apt install iproute2`"),
    _Need("nft", True, "no published ports or service addresses", "`apt install nftables`"),
    _Need("unshare", True, "the playground can't make hosts", "`apt install util-linux`"),
    _Need("nsenter", True, "commands can't be run in playground hosts", "`apt install util-linux`"),
    _Need("conntrack", False, "old connections to a removed task linger", "`apt install conntrack`"),
    _Need(
        "docker",
        False,
        "the docker CLI can't be used; `shoal` has the same verbs",
        "`apt install docker-cli`, or on Debian 12 docker.io, whose daemon need not run",
    ),
)

_MODULES = (
    "pysyncobj",
    "aiohttp",
    "pyroute2",
    "cryptography",
    "msgspec",
    "dns",
    "rich",
    "click",
    "zstandard",
)
_CONTROLLERS = {
    "memory": "memory limits",
    "cpu": "CPU limits",
    "pids": "process limits",
    "cpuset": "pinning to CPUs",
}


def privileges(probe: Probe) -> Iterator[Finding]:
    """Root and the capabilities that a container or a hardened unit may lack."""
    if not probe.root():
        yield Finding(
            "privileges",
            "root",
            Level.MISSING,
            "this user is not root",
            "nothing can be set up",
            "run it with sudo",
        )
    costs = {
        "CAP_SYS_ADMIN": (Level.MISSING, "no namespaces or mounts"),
        "CAP_NET_ADMIN": (Level.MISSING, "no networks"),
        "CAP_SYS_RESOURCE": (Level.NOTE, "limits (ulimits) can't be raised above the daemon's own"),
    }
    held = probe.capabilities()
    for capability, (level, cost) in costs.items():
        if capability in held:
            yield Finding("privileges", capability, Level.OK)
        else:
            remedy = "give it to the container or unit that this runs in"
            yield Finding("privileges", capability, level, "not held", cost, remedy)


def manager(probe: Probe) -> Iterator[Finding]:
    """How little a manager process can do beside managing."""
    if probe.landlock():
        yield Finding("manager", "Landlock", Level.OK)
    else:
        cost = "the manager process is kept off other files by their modes and owners alone"
        remedy = "use a kernel with CONFIG_SECURITY_LANDLOCK, and `landlock` among lsm= if it boots with that"
        yield Finding("manager", "Landlock", Level.NOTE, "not in this kernel", cost, remedy)
    for seen in probe.managers():
        subject = f"process {seen.pid}"
        if seen.uid == 0 or seen.capabilities:
            detail = "runs as root" if seen.uid == 0 else f"holds capabilities ({seen.capabilities:x})"
            cost = "an attacker who takes it over through the network has the machine"
            yield Finding("manager", subject, Level.NOTE, detail, cost, "restart shoald, of this version")
        else:
            yield Finding("manager", subject, Level.OK, f"user {seen.uid}, no capabilities")


def kernel(probe: Probe) -> Iterator[Finding]:
    """What the kernel can do, tried out."""
    version = probe.kernel()
    name = f"{version[0]}.{version[1]}"
    if version < (5, 10):
        remedy = "upgrade the system: Debian 11 and Ubuntu 22.04 have newer ones"
        yield Finding(
            "kernel", "version", Level.NOTE, name, "older than 5.10, which nothing is tested on", remedy
        )
    else:
        yield Finding("kernel", "version", Level.OK, name)
    for need in _FEATURES:
        if (problem := probe.feature(need.name)) is None:
            yield Finding("kernel", need.name, Level.OK)
        else:
            level = Level.MISSING if need.required else Level.NOTE
            yield Finding("kernel", need.name, level, problem, need.cost, need.remedy)
    if probe.seccomp():
        yield Finding("kernel", "seccomp", Level.OK)
    else:
        cost = "containers may use system calls that Docker's profile forbids"
        yield Finding(
            "kernel", "seccomp", Level.NOTE, "not built in", cost, "use a kernel with CONFIG_SECCOMP_FILTER"
        )


def encryption(probe: Probe) -> Iterator[Finding]:
    """With what encrypted networks can be on this node: the kernel's WireGuard, or a program's."""
    problem = probe.feature("wireguard")
    remedy = "`modprobe wireguard` (kernels from 5.6 have it)"
    if problem is None:
        yield Finding("kernel", "wireguard", Level.OK)
    elif probe.program("wireguard-go"):
        detail = f"{problem}; wireguard-go is here"
        cost = "networks with `--opt encrypted` are several times slower than with the kernel's"
        yield Finding("kernel", "wireguard", Level.NOTE, detail, cost, remedy)
    else:
        detail = f"{problem}, and there is no wireguard-go"
        cost = "networks with `--opt encrypted`, and tasks on them, are refused on this node"
        yield Finding(
            "kernel", "wireguard", Level.NOTE, detail, cost, f"{remedy}, or `apt install wireguard-go`"
        )


def cgroups(probe: Probe) -> Iterator[Finding]:
    """The cgroup mode and the controllers behind the limits."""
    mode, controllers = probe.cgroups()
    if mode == "none":
        cost, remedy = "no container can start", "mount cgroup2 on /sys/fs/cgroup"
        yield Finding("cgroups", "mode", Level.MISSING, "not mounted", cost, remedy)
        return
    if mode == "hybrid":
        cost = "crun refuses it when cgroup2 holds controllers; shoald and the playground work around that"
        remedy = "boot with systemd.unified_cgroup_hierarchy=1 for pure v2"
        yield Finding("cgroups", "mode", Level.NOTE, "hybrid (v1 and v2)", cost, remedy)
    else:
        yield Finding("cgroups", "mode", Level.OK, mode)
    for controller, use in _CONTROLLERS.items():
        if controller in controllers:
            yield Finding("cgroups", controller, Level.OK)
        else:
            remedy = "enable it: in a container, delegate it; on Raspberry Pi, boot with cgroup_enable=memory"
            yield Finding("cgroups", controller, Level.NOTE, "not available", f"no {use}", remedy)


def tools(probe: Probe) -> Iterator[Finding]:
    """Programs, the nftables library and Python packages."""
    runtimes = [name for name in ("crun", "runc") if probe.program(name)]
    if not runtimes:
        yield Finding(
            "tools",
            "crun",
            Level.MISSING,
            "neither crun nor runc",
            "no container can start",
            "`apt install crun`",
        )
    elif "crun" not in runtimes:
        cost = "runc serves; containers start about three times slower than with crun"
        yield Finding("tools", "crun", Level.NOTE, "only runc", cost, "`apt install crun`")
    else:
        yield Finding("tools", "crun", Level.OK)
    for need in _PROGRAMS:
        if path := probe.program(need.name):
            yield Finding("tools", need.name, Level.OK, path)
        else:
            level = Level.MISSING if need.required else Level.NOTE
            yield Finding("tools", need.name, level, "not on PATH", need.cost, need.remedy)
    if probe.library("nftables"):
        yield Finding("tools", "libnftables", Level.OK)
    else:
        cost = "no published ports or service addresses"
        yield Finding("tools", "libnftables", Level.MISSING, "not found", cost, "`apt install libnftables1`")
    for name in _MODULES:
        if not probe.module(name):
            remedy = "install Shoal with its dependencies: `pip install .`"
            yield Finding(
                "tools", f"Python {name}", Level.MISSING, "can't be imported", "shoald does not start", remedy
            )
    if probe.legacy_iptables():
        cost = "its rules and Shoal's are both obeyed, but neither sees the other: a DROP there wins"
        remedy = "`update-alternatives --set iptables /usr/sbin/iptables-nft`, and reboot"
        yield Finding("tools", "iptables", Level.NOTE, "rules of the old iptables are loaded", cost, remedy)


def ports(probe: Probe) -> Iterator[Finding]:
    """The ports that nodes speak to each other on."""
    uses = (("tcp", 2377, "this machine can't be in a cluster"), ("udp", 4789, "no overlay networks"))
    for protocol, port, cost in uses:
        subject = f"{port}/{protocol}"
        if probe.port_taken(protocol, port):
            remedy = (
                f"see who holds it with `ss -lnp 'sport = :{port}'`; if it is shoald or dockerd, that is why"
            )
            yield Finding("ports", subject, Level.NOTE, "taken", cost, remedy)
        else:
            yield Finding("ports", subject, Level.OK, "free")


def resources(probe: Probe) -> Iterator[Finding]:
    """Disk space and the clock."""
    free = probe.free_bytes(_DATA_ROOT)
    detail = f"{free / _GIB:.1f} GiB free for {_DATA_ROOT}"
    if free < _GIB // 4:
        yield Finding(
            "resources", "disk", Level.MISSING, detail, "Raft and images need more", "free some space"
        )
    elif free < 5 * _GIB:
        yield Finding("resources", "disk", Level.NOTE, detail, "room for few images", "free some space")
    else:
        yield Finding("resources", "disk", Level.OK, detail)
    synchronised = probe.clock_synchronised()
    if synchronised:
        yield Finding("resources", "clock", Level.OK, "synchronised")
    else:
        detail = "not synchronised" if synchronised is False else "can't tell whether it is synchronised"
        cost = "certificates may seem not yet valid, or expired, on other nodes"
        yield Finding("resources", "clock", Level.NOTE, detail, cost, "`apt install chrony`")


def examine(probe: Probe) -> list[Finding]:
    """All checks, in the order to read them."""
    return [
        finding
        for check in (privileges, manager, kernel, encryption, cgroups, tools, ports, resources)
        for finding in check(probe)
    ]


def fit(findings: list[Finding]) -> bool:
    """True when nothing that Shoal requires is missing."""
    return all(finding.level is not Level.MISSING for finding in findings)
