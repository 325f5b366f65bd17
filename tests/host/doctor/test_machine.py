"""The real probe on the real machine, which must be as before afterwards."""

import os
import socket
from pathlib import Path

import pytest

from shoal.doctor.probe import FEATURES, Machine

pytestmark = pytest.mark.host


def test_trials_leave_nothing_behind() -> None:
    def state() -> tuple[set[str], str]:
        return set(os.listdir("/sys/class/net")), Path("/proc/self/mountinfo").read_text()

    before = state()
    for name in FEATURES:
        Machine().feature(name)
    assert state() == before


@pytest.mark.parametrize("name", ["overlayfs", "bridge", "veth", "vxlan", "nat", "conntrack"])
def test_what_the_playground_tests_use_is_found(name: str) -> None:
    assert Machine().feature(name) is None


def test_a_trial_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEATURES, "nonsense", (["ip", "link", "add", "x0", "type", "nonsense"], ""))
    problem = Machine().feature("nonsense")
    assert problem is not None
    assert "device type" in problem


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_taken_port_is_noticed(protocol: str, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("0.0.0.0", 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        port = holder.getsockname()[1]
        assert Machine().port_taken(protocol, port)
    assert not Machine().port_taken(protocol, port)


def test_facts_of_this_machine() -> None:
    machine = Machine()
    mode, controllers = machine.cgroups()
    assert mode in ("v1", "v2", "hybrid")
    assert "memory" in controllers
    assert machine.kernel() >= (4, 0)
    assert machine.free_bytes(Path("/no/such/folder/anywhere")) > 0
    assert machine.program("sh")
    assert machine.program("no-such-program") is None
    assert machine.module("json")
    assert not machine.module("no_such_module")
    assert "CAP_SYS_ADMIN" in machine.capabilities()
