"""The rules of published ports in the host's tables: those of the routing mesh, and those of one container.

A port of the mesh is a key of the map `ports` that leads to a chain of its own, in each family. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from cluster.dataplane import Protocol, address6_for
from cluster.publish_at import is_interface, version
from netplane.host_rules import FAMILIES, TABLE
from netplane.model import HostPort
from netplane.netlink import nft_balance


@dataclass(frozen=True)
class Published:
    """Where a port that is published on every node leads: its backends, in order. None: refuse at once."""

    protocol: Protocol
    port: int
    target: int
    backends: tuple[str, ...]
    at: tuple[str, ...] = ()
    """Addresses, subnets and interfaces at which alone it is open; empty: everywhere."""
    subnet6: str = ""
    """That of the backends' network; empty: it has no IPv6, and the port is open by IPv4 only."""
    proxy: str = ""
    """The version of the PROXY protocol by which the container is told of its clients; empty: by none."""


PortKey = tuple[Protocol, int]


def publish(before: Mapping[PortKey, Published], after: Mapping[PortKey, Published]) -> str:
    """The commands that turn the published ports `before` into those `after`; "" if nothing changed."""
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    lines: list[str] = []
    for family in FAMILIES:
        old = {key: _rules(family, before[key]) for key in changed if key in before}
        new = {key: _rules(family, after[key]) for key in changed if key in after}
        for key in changed:
            lines += _replace(family, key, old.get(key, []), new.get(key, []))
    return "".join(f"{line}\n" for line in lines)


def rebalance(before: Mapping[PortKey, Published], after: Mapping[PortKey, Published]) -> list[bytes] | None:
    """The same as messages for the kernel, if nothing changed but backends of ports that are open everywhere;
    None if other things did."""
    messages: list[bytes] = []
    if before.keys() != after.keys():
        return None
    for number, (key, published) in enumerate(sorted(after.items())):
        if (
            published.at
            or published.proxy
            or replace(before[key], backends=()) != replace(published, backends=())
        ):
            return None
        chain, protocol = f"port_{key[0]}_{key[1]}", nft_balance.PROTOCOLS[published.protocol]
        for family in FAMILIES if published.subnet6 else FAMILIES[:1]:
            ways = [(each, published.target) for each in _backends(family, published)]
            code, set_id = nft_balance.FAMILIES[family], 2 * number + 1 + (family == "ip6")
            messages += nft_balance.rebalance(TABLE, chain, code, protocol, ways, set_id)
    return messages


def open_host_ports(address: str, address6: str, ports: Sequence[HostPort]) -> str:
    """Lead ports of this host to a sandbox's addresses; "" where it has none."""
    return "".join(
        f"add element {family} {TABLE} {name} {{ {key} : {to} . {port.target} }}\n"
        for port in ports
        for family, to in zip(FAMILIES, (address, address6), strict=True)
        for name, key in _host_port(family, port)
        if to
    )


def close_host_ports(address: str, address6: str, ports: Sequence[HostPort]) -> str:
    """Take ports of this host back that led to these addresses."""
    return "".join(
        f"delete element {family} {TABLE} {name} {{ {key} }}\n"
        for port in ports
        for family, to in zip(FAMILIES, (address, address6), strict=True)
        for name, key in _host_port(family, port)
        if to
    )


def _replace(family: str, key: PortKey, old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The commands that turn the rules of a port into others; one without rules is not open."""
    if old == new:
        return []
    protocol, number = key
    chain = f"{family} {TABLE} port_{protocol}_{number}"
    element = f"element {family} {TABLE} ports {{ {protocol} . {number}"
    lines = []
    if old and not new:
        lines.append(f"delete {element} }}")
    lines.append(f"flush chain {chain}" if old else f"add chain {chain}")
    lines += [f"add rule {chain} {rule}" for rule in new]
    if not new:
        lines.append(f"delete chain {chain}")
    elif not old:
        lines.append(f"add {element} : goto port_{protocol}_{number} }}")
    return lines


def _rules(family: str, published: Published) -> list[str]:
    """The rules of a port in a family; none if it is not open in it at all."""
    if family == "ip6" and not published.subnet6:
        return []
    elsewhere = _elsewhere(family, published.at)
    if elsewhere is None:
        return []
    through = [f"jump proxy_{published.proxy}"] if published.proxy else []
    return elsewhere + through + _destinations(family, published)


def _elsewhere(family: str, places: Sequence[str]) -> list[str] | None:
    """The rule that leaves packets to other places than these to the host itself; None if all are of the
    other family. What the host sends has come in by no interface: the condition on those lets it pass."""
    subnets = [each for each in places if not is_interface(each) and "%" not in each]  # a zone is any text
    addresses = [_subnet(each) for each in subnets if FAMILIES[version(each) == 6] == family]
    interfaces = [f'"{each}"' for each in places if is_interface(each)]
    if places and not addresses and not interfaces:
        return None
    conditions = [f"{family} daddr != {{ {', '.join(addresses)} }}"] if addresses else []
    conditions += [f"iifname != {{ {', '.join(interfaces)} }}"] if interfaces else []
    return [f"{' '.join(conditions)} return"] if conditions else []


def _subnet(place: str) -> str:
    """An address or a subnet as nft reads it: without a mask, whatever an older version let pass."""
    return str(ip_network(place, strict=False)) if "/" in place else place


def _destinations(family: str, published: Published) -> list[str]:
    if not published.backends:
        if published.protocol is Protocol.TCP:
            return ["meta l4proto tcp reject with tcp reset"]
        return ["reject"]
    backends = _backends(family, published)
    first = f"[{backends[0]}]" if family == "ip6" else backends[0]
    slots = ", ".join(f"{slot} : {address} . {published.target}" for slot, address in enumerate(backends))
    return [
        f"meta l4proto {published.protocol} dnat {family} addr . port to "
        f"numgen inc mod {len(backends)} map {{ {slots} }}",
        # For a packet that meets the rule above while its map is not in force: the kernel commits rules and
        # elements one after the other.
        f"meta l4proto {published.protocol} dnat to {first}:{published.target}",
    ]


def _backends(family: str, published: Published) -> Sequence[str]:
    if family == "ip":
        return published.backends
    return [address6_for(published.subnet6, each).partition("/")[0] for each in published.backends]


def _host_port(family: str, port: HostPort) -> list[tuple[str, str]]:
    """The map and the key of a port in a family; none if it is not open in it."""
    key = f"{port.protocol} . {port.published}"
    if port.host_ip in ("", ("0.0.0.0", "::")[family == "ip6"]):
        return [("host_ports", key)]
    if port.host_ip in ("0.0.0.0", "::") or FAMILIES[version(port.host_ip) == 6] != family:
        return []
    return [("host_ports_at", f"{port.host_ip} . {key}")]
