"""The text of the host's tables: networks, nodes, guards; only what changed is written."""

import ipaddress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from netplane import host_rules
from netplane.host_rules import Contents
from netplane.model import Interface, Segment


def segment(name: str, subnet: str, *, internal: bool = False, subnet6: str = "") -> Segment:
    network = ipaddress.IPv4Network(subnet)
    network6 = ipaddress.IPv6Network(subnet6) if subnet6 else None
    return Segment(
        name,
        name,
        1,
        1500,
        network,
        str(network[1]),
        internal=internal,
        subnet6=network6,
        gateway6=str(network6[1]) if network6 else "",
    )


ONE = segment("one", "10.1.0.0/24", subnet6="fd00:1::/64")
TWO = segment("two", "10.2.0.0/24", internal=True)


def test_both_families_have_the_same_frame() -> None:
    text = host_rules.frame()
    for family in ("ip", "ip6", "bridge"):
        assert text.index(f"delete table {family} shoal\n") < text.index(f"table {family} shoal {{")
        assert f"chain {host_rules.LAYOUT} {{" in text
    assert "table bridge" not in host_rules.frame(guard=False)


def test_networks() -> None:
    found = host_rules.networks([ONE, TWO]).elements
    assert set(found["ip", "masqueraded"]) == {"10.1.0.0/24"}
    assert set(found["ip", "subnets"]) == {"10.1.0.0/24", "10.2.0.0/24"}
    assert set(found["ip6", "masqueraded"]) == set(found["ip6", "subnets"]) == {"fd00:1::/64"}
    assert set(found["ip", "gateways"]) == {"10.1.0.1", "10.2.0.1"}
    assert found["ip6", "internal"] == {'"two"': '"isolated_two"'}
    assert found["ip", "isolated"] == {'"one"': '"isolated_one"', '"two"': '"isolated_two"'}


def test_the_default_bridges_address_is_the_hosts_for_any_container() -> None:
    default = replace(ONE, resolves_names=False)
    assert not host_rules.networks([default]).elements["ip", "gateways"]


def test_a_subnet_within_another_is_left_out() -> None:
    """A removed network's bridge is there until its last container is gone."""
    found = host_rules.networks([segment("old", "10.1.0.0/16"), ONE]).elements
    assert set(found["ip", "subnets"]) == {"10.1.0.0/16"}


def test_a_change_says_what_it_is_about() -> None:
    before, after = host_rules.networks([ONE]), host_rules.networks([ONE, TWO])
    assert host_rules.change(before, before) == ""
    text = host_rules.change(before, after)
    assert "one" not in text
    assert text.index("add counter ip shoal isolated_two\n") < text.index("add element ip shoal internal")
    text = host_rules.change(after, before)
    assert text.index("delete element ip shoal internal") < text.index(
        "delete counter ip shoal isolated_two\n"
    )


_KEYS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz"))
_CONTENTS = st.builds(
    lambda elements, counters: Contents(
        {("ip", name): values for name, values in elements.items()},
        frozenset(("ip", name) for name in counters),
    ),
    st.dictionaries(st.sampled_from(("one", "two")), _KEYS),
    st.sets(st.sampled_from("klm")),
)


@given(_CONTENTS, _CONTENTS)
def test_carried_out_a_change_gives_what_is_wanted(before: Contents, after: Contents) -> None:
    held = {place: dict(values) for place, values in before.elements.items()}
    counters = set(before.counters)
    for line in host_rules.change(before, after).splitlines():
        verb, kind, family, _, name, *rest = line.split(" ", 5)
        if kind == "counter":
            assert ((family, name) in counters) == (verb == "delete")
            (counters.remove if verb == "delete" else counters.add)((family, name))
            continue
        for entry in rest[0].strip("{ }").split(", "):
            key, _, value = entry.partition(" : ")
            values = held.setdefault((family, name), {})
            assert (key in values) == (verb == "delete"), "what is deleted is there, what is added is not"
            if verb == "delete":
                del values[key]
            else:
                values[key] = value
    assert counters == after.counters
    assert {place: values for place, values in held.items() if values} == {
        place: dict(values) for place, values in after.elements.items() if values
    }


def test_without_nodes_frames_may_come_from_anywhere() -> None:
    assert not host_rules.cluster((), 4789).elements["ip", "tunnel_ports"]
    known = host_rules.cluster(["192.0.2.1"], 4789).elements
    assert (set(known["ip", "peers"]), set(known["ip", "tunnel_ports"])) == ({"192.0.2.1"}, {"4789"})


def test_a_nodes_address_is_in_the_table_of_its_family_or_nowhere() -> None:
    words = ["192.0.2.1", "2001:db8::1", "fe80::1%x }\nflush ruleset\n#", "[2001:db8::2]", "node"]
    known = host_rules.cluster(words, 4789).elements
    assert set(known["ip", "peers"]) == set(known["ip", "nodes"]) == {"192.0.2.1"}
    assert set(known["ip6", "nodes"]) == {"2001:db8::1"}


def test_a_guest_sends_as_itself_only() -> None:
    end = Interface(
        "net", "eth0", 11, "shv1", 1450, "10.0.1.2", 24, "02:42:0a:00:01:02", address6="fd00::a00:102"
    )
    found = host_rules.guests([end], {"net": "sho1"}).elements
    assert found["bridge", "guarded"] == {'"shv1"': '"spoofed_sho1"'}
    assert set(found["bridge", "senders"]) == {
        '"shv1" . 02:42:0a:00:01:02 . 10.0.1.2',
        '"shv1" . 02:42:0a:00:01:02 . 0.0.0.0',
    }
    assert '"shv1" . 02:42:0a:00:01:02 . fe80::42:aff:fe00:102' in found["bridge", "senders6"]
    assert set(found[host_rules.ADVERTISED]) == {
        '"shv1" . 02:42:0a:00:01:02 . 0xfd00000000000000000000000a000102',
        f'"shv1" . 02:42:0a:00:01:02 . {int(ipaddress.IPv6Address("fe80::42:aff:fe00:102")):#x}',
    }
