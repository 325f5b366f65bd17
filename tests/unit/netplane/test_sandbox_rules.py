"""The messages of a sandbox's rules: a change writes what changed, and is worth writing the whole."""

import socket
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.dataplane import address6_for
from netplane import sandbox_rules
from netplane.netlink import nft
from netplane.netlink.wire import attributes

_ADDRESS = st.integers(2, 12).map(lambda last: f"10.0.0.{last}")
_VIPS = st.dictionaries(_ADDRESS, st.lists(_ADDRESS, max_size=4, unique=True), max_size=5)
_SUBNET6 = "fd00:0:0:7::/64"
_NEW_ELEMENT, _DELETE_ELEMENT = 12, 14

Maps = dict[tuple[int, str], dict[bytes, bytes]]


def listed(data: bytes) -> Iterable[dict[int, bytes]]:
    """The elements of a message."""
    while data:
        length = struct.unpack_from("=H", data)[0]
        yield attributes(data[4:length])
        data = data[(length + 3) & ~3 :]


def carry_out(messages: Iterable[bytes], maps: Maps) -> None:
    """What the kernel does with elements: none may be there twice, or be taken that is not there."""
    for message in messages:
        kind, family = struct.unpack_from("=H", message, 4)[0] & 0xFF, message[16]
        body = attributes(message[20:])
        if kind not in (_NEW_ELEMENT, _DELETE_ELEMENT):
            continue
        elements = maps.setdefault((family, body[2].rstrip(b"\0").decode()), {})
        for each in listed(body[3]):
            key = attributes(each[1])[1]
            if kind == _DELETE_ELEMENT:
                del elements[key]
            else:
                assert key not in elements
                elements[key] = attributes(each[2]).get(1, b"")


def kernel(*steps: list[bytes]) -> Maps:
    maps: Maps = {}
    for step in steps:
        carry_out(step, maps)
    return {name: elements for name, elements in maps.items() if elements and name[1] != "ways"}


@given(st.lists(_VIPS, min_size=1, max_size=5), st.sampled_from(["", _SUBNET6]))
def test_a_history_of_changes_is_worth_writing_the_whole(
    history: list[dict[str, list[str]]], subnet6: str
) -> None:
    steps = [
        sandbox_rules.balance(before, after, subnet6)
        for before, after in zip([{}, *history], history, strict=False)
    ]
    whole = sandbox_rules.whole(dns_port=4000, mesh=None, networks=[(history[-1], subnet6)], had_ipv6=False)
    assert kernel(*steps) == kernel(whole)


@given(_VIPS, _VIPS)
def test_only_what_changed_is_written(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    messages = b"".join(sandbox_rules.balance(before, after))
    assert (messages == b"") == (before == after)
    for vip in before.keys() | after.keys():
        if before.get(vip) == after.get(vip):
            assert attribute_of(vip) not in messages


def attribute_of(vip: str) -> bytes:
    """How a key begins that is this address, alone or before a slot."""
    return struct.pack("=H", 0x8001) + struct.pack("=HH", 8, 1) + socket.inet_aton(vip)


@given(st.lists(_ADDRESS, unique=True), st.sets(_ADDRESS))
def test_who_stays_keeps_its_slot(before: list[str], wanted: set[str]) -> None:
    after = sandbox_rules.arrange(before, wanted)
    assert len(after) == len(wanted)
    assert set(after) == wanted
    written = sum(old != new for old, new in zip(before, after, strict=False))
    assert written <= len(set(before) - wanted)


def test_ipv6_is_derived() -> None:
    maps = kernel(sandbox_rules.balance({}, {"10.0.0.2": ["10.0.0.9"]}, _SUBNET6))

    def packed(address: str) -> bytes:
        return socket.inet_pton(socket.AF_INET6, address6_for(_SUBNET6, address).partition("/")[0])

    assert maps[nft.IP6, "backends"] == {packed("10.0.0.2") + bytes(4): packed("10.0.0.9")}
    assert maps[nft.IP6, "sizes"] == {packed("10.0.0.2"): struct.pack("=I", 1)}


@pytest.mark.parametrize("subnet6", ["", _SUBNET6])
def test_messages_are_well_formed(subnet6: str) -> None:
    vips = {"10.0.0.2": [f"10.0.{i // 250}.{i % 250}" for i in range(2000)], "10.0.0.3": []}
    for message in sandbox_rules.whole(
        dns_port=4000, mesh=("eth0", 11), networks=[(vips, subnet6)], had_ipv6=True
    ):
        length, kind = struct.unpack_from("=IH", message)
        assert length == len(message)
        assert kind >> 8 == 10
        assert attributes(message[20:])[1].startswith(b"shoal\0")


def test_every_protocol_is_led() -> None:
    """Also those that this kernel may not have, as SCTP: the rules that choose a backend ask for none."""
    new_rule = 6
    for family in (nft.IP, nft.IP6):
        rules = [
            attributes(message[20:])[4]
            for message in sandbox_rules.spread({2}, ipv6=True)
            if struct.unpack_from("=H", message, 4)[0] & 0xFF == new_rule and message[16] == family
        ]
        choosing = [each for each in rules if b"nat\0" in each]
        assert len(choosing) == 2
        assert not any(b"meta\0" in each for each in choosing)
