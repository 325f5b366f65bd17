"""What the doctor says of machines that lack this or that."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shoal.doctor.checks import Finding, Level, examine, fit
from shoal.doctor.probe import CAPABILITIES, FEATURES, ManagerSeen

ALL_CONTROLLERS = frozenset({"memory", "cpu", "pids", "cpuset"})


@dataclass
class FakeMachine:
    """A Probe of a machine that has everything, but for what a test takes away."""

    is_root: bool = True
    held: frozenset[str] = frozenset(CAPABILITIES)
    broken: dict[str, str] = field(default_factory=dict)
    cgroup: tuple[str, frozenset[str]] = ("v2", ALL_CONTROLLERS)
    filters: bool = True
    no_programs: frozenset[str] = frozenset()
    no_modules: frozenset[str] = frozenset()
    nftables: bool = True
    taken: frozenset[int] = frozenset()
    free: int = 100 * 2**30
    clock: bool | None = True
    version: tuple[int, int] = (6, 1)
    legacy: bool = False
    confines: bool = True
    seen: tuple[ManagerSeen, ...] = (ManagerSeen(7, 65521, 0),)

    def root(self) -> bool:
        return self.is_root

    def capabilities(self) -> frozenset[str]:
        return self.held

    def feature(self, name: str) -> str | None:
        assert name in FEATURES
        return self.broken.get(name)

    def cgroups(self) -> tuple[str, frozenset[str]]:
        return self.cgroup

    def seccomp(self) -> bool:
        return self.filters

    def landlock(self) -> bool:
        return self.confines

    def managers(self) -> list[ManagerSeen]:
        return list(self.seen)

    def program(self, name: str) -> str | None:
        return None if name in self.no_programs else f"/usr/bin/{name}"

    def library(self, name: str) -> bool:
        return self.nftables

    def module(self, name: str) -> bool:
        return name not in self.no_modules

    def port_taken(self, protocol: str, port: int) -> bool:
        return port in self.taken

    def free_bytes(self, path: Path) -> int:
        return self.free

    def clock_synchronised(self) -> bool | None:
        return self.clock

    def kernel(self) -> tuple[int, int]:
        return self.version

    def legacy_iptables(self) -> bool:
        return self.legacy


def lacks(machine: FakeMachine) -> list[Finding]:
    return [finding for finding in examine(machine) if finding.level is not Level.OK]


def test_a_whole_machine_lacks_nothing() -> None:
    assert lacks(FakeMachine()) == []
    assert fit(examine(FakeMachine()))


@pytest.mark.parametrize(
    ("machine", "subject"),
    [
        (FakeMachine(is_root=False), "root"),
        (FakeMachine(held=frozenset({"CAP_NET_ADMIN", "CAP_SYS_RESOURCE"})), "CAP_SYS_ADMIN"),
        (FakeMachine(broken={"vxlan": "Unknown device type"}), "vxlan"),
        (FakeMachine(broken={"overlayfs": "no such device"}), "overlayfs"),
        (FakeMachine(cgroup=("none", frozenset())), "mode"),
        (FakeMachine(no_programs=frozenset({"crun", "runc"})), "crun"),
        (FakeMachine(no_programs=frozenset({"conmon"})), "conmon"),
        (FakeMachine(no_modules=frozenset({"msgspec"})), "Python msgspec"),
        (FakeMachine(nftables=False), "libnftables"),
        (FakeMachine(free=1000), "disk"),
    ],
)
def test_what_is_required(machine: FakeMachine, subject: str) -> None:
    (finding,) = lacks(machine)
    assert (finding.subject, finding.level) == (subject, Level.MISSING)
    assert not fit(examine(machine))


@pytest.mark.parametrize(
    ("machine", "subject"),
    [
        (FakeMachine(held=frozenset({"CAP_NET_ADMIN", "CAP_SYS_ADMIN"})), "CAP_SYS_RESOURCE"),
        (FakeMachine(broken={"wireguard": "Unknown device type"}), "wireguard"),
        (FakeMachine(cgroup=("hybrid", ALL_CONTROLLERS)), "mode"),
        (FakeMachine(cgroup=("v2", ALL_CONTROLLERS - {"memory"})), "memory"),
        (FakeMachine(no_programs=frozenset({"crun"})), "crun"),
        (FakeMachine(no_programs=frozenset({"docker"})), "docker"),
        (FakeMachine(taken=frozenset({2377})), "2377/tcp"),
        (FakeMachine(taken=frozenset({4789})), "4789/udp"),
        (FakeMachine(free=2 * 2**30), "disk"),
        (FakeMachine(clock=False), "clock"),
        (FakeMachine(clock=None), "clock"),
        (FakeMachine(version=(5, 4)), "version"),
        (FakeMachine(legacy=True), "iptables"),
        (FakeMachine(filters=False), "seccomp"),
        (FakeMachine(confines=False), "Landlock"),
        (FakeMachine(seen=(ManagerSeen(8, 0, 0),)), "process 8"),
        (FakeMachine(seen=(ManagerSeen(9, 998, 1 << 10),)), "process 9"),
    ],
)
def test_what_one_can_do_without(machine: FakeMachine, subject: str) -> None:
    (finding,) = lacks(machine)
    assert (finding.subject, finding.level) == (subject, Level.NOTE)
    assert fit(examine(machine))


def test_every_lack_says_what_it_costs_and_what_to_do() -> None:
    worst = FakeMachine(
        is_root=False,
        held=frozenset(),
        broken=dict.fromkeys(FEATURES, "no"),
        cgroup=("none", frozenset()),
        filters=False,
        no_programs=frozenset({"crun", "runc", "conmon", "ip", "nft", "docker"}),
        nftables=False,
        taken=frozenset({2377, 4789}),
        free=0,
        clock=False,
        version=(4, 19),
        legacy=True,
        confines=False,
        seen=(ManagerSeen(8, 0, 1),),
    )
    for finding in lacks(worst):
        assert finding.detail, finding
        assert finding.cost, finding
        assert finding.remedy, finding
