"""Service addresses at connect(): what is told the kernel, and what happens when it refuses."""

import errno
import logging
import socket
import struct
from pathlib import Path

import pytest

from netplane import connecting
from netplane.balanced import Change, Vips
from netplane.bpf.assembler import FRAME, R0, R1, Program
from netplane.bpf.connect import Connect
from netplane.bpf.kernel import BpfError
from netplane.connecting import Connecting
from netplane.model import Attachment, Interface, Sandbox, SandboxRecord, SandboxSpec
from netplane.netlink.wire import ROUTE, NetlinkSocket


class Kernel:
    """Instead of the programs and maps. `refuses`: from now on."""

    def __init__(self) -> None:
        self.refuses = False
        self.spaces: dict[int, tuple[str, ...]] = {}
        self.vips: dict[str, dict[bytes, list[bytes]]] = {}
        self.there = True

    def _check(self) -> None:
        if self.refuses:
            raise BpfError(errno.E2BIG, "setting elements of a map")

    def enter(self, cookie: int, networks: tuple[str, ...]) -> None:
        self._check()
        self.spaces[cookie] = networks

    def leave(self, cookie: int) -> None:
        self._check()
        del self.spaces[cookie]

    def keep(self, cookies: object) -> None:
        self._check()

    def write_whole(self, networks: dict[str, dict[bytes, list[bytes]]]) -> None:
        self._check()
        self.vips = networks

    def change(
        self, network_id: str, before: dict[bytes, list[bytes]], after: dict[bytes, list[bytes]]
    ) -> None:
        self._check()
        known = self.vips.setdefault(network_id, {})
        for vip in before.keys() - after.keys():
            del known[vip]
        known.update(after)

    def close(self) -> None:
        pass

    def remove(self) -> None:
        self.there = False


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(Connect, "open", lambda _: made)
    monkeypatch.setattr(connecting, "directory_of", lambda _: Path("/nowhere"))
    return made


def record(*networks: str) -> SandboxRecord:
    attachments = tuple(Attachment(each) for each in networks)
    interfaces = tuple(
        Interface(
            network_id=each, port="p", device="eth0", index=11, address="10.0.0.9", prefix=24, mac="m", mtu=1
        )
        for each in networks
    )
    return SandboxRecord(
        spec=SandboxSpec(id="box", attachments=attachments),
        sandbox=Sandbox(id="box", netns=None),
        interfaces=interfaces,
    )


def test_the_kernel_follows(kernel: Kernel) -> None:
    sock = NetlinkSocket(ROUTE)
    try:
        following = Connecting("/shoal/containers")
        following.enter(record("one"), sock)
        following.join()
        cookie = sock.namespace_cookie()
        assert kernel.spaces == {cookie: ("one",)}
        vip, backend = socket.inet_aton("10.0.0.2"), socket.inet_aton("10.0.0.9")
        after: Vips = {"10.0.0.2": ("10.0.0.9",)}
        following.update(Change({"one": ({}, after)}), {"one": after}, {"one": "fd00:0:0:7::/64"})
        prefix = bytes.fromhex("fd00000000000007") + bytes(4)
        assert kernel.vips == {"one": {vip: [backend], prefix + vip: [prefix + backend]}}
        following.update(Change({"one": (after, {})}), {}, {"one": "fd00:0:0:7::/64"})
        assert kernel.vips == {"one": {}}
        following.enter(record("one", "two"), sock)
        assert kernel.spaces == {cookie: ("one", "two")}
        following.forget("box")
        assert kernel.spaces == {}
        following.close()
        assert not kernel.there, "no container is left that needs it"
    finally:
        sock.close()


@pytest.mark.parametrize("step", ["update", "enter", "forget"])
def test_a_kernel_that_refuses_leaves_it_to_the_rules(
    kernel: Kernel, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing may be led by maps that are not kept in line, so the programs go."""
    sock = NetlinkSocket(ROUTE)
    try:
        following = Connecting("/shoal/containers")
        following.join()
        following.enter(record("one"), sock)
        kernel.refuses = True
        with caplog.at_level(logging.WARNING, "shoal.netplane"):
            match step:
                case "update":
                    following.update(Change(), {}, {})
                case "enter":
                    following.enter(record("one"), sock)
                case "forget":
                    following.forget("box")
        assert not kernel.there
        assert "left to nftables alone" in caplog.text
        following.join()  # not again before the next start
        following.update(Change(), {}, {})
    finally:
        sock.close()


def test_without_a_cgroup_all_is_left_to_the_rules() -> None:
    following = Connecting("")
    following.join()
    following.update(Change(), {}, {})
    following.leave()
    following.close()


def test_instructions() -> None:
    code = Program()
    code.map(R1, "some")
    code.store_value(FRAME, -8, 7)
    code.jump_if(R1, 0, "end")
    code.move(R0, R1)
    code.label("end")
    code.exit(1)
    words = [struct.unpack_from("=BBhi", code.assemble({"some": 9}), 8 * i) for i in range(7)]
    little = struct.pack("=H", 1)[0] == 1
    assert words[0] == (0x18, 0x11, 0, 9)
    assert words[2] == (0x62, 0x0A if little else 0xA0, -8, 7)
    assert words[3][0::2] == (0x15, 1)  # over one instruction
    assert words[5:] == [(0xB7, 0, 0, 1), (0x95, 0, 0, 0)]
