"""The text of the host's own tables, all called `shoal`: `ip` and `ip6`, which are alike, and `bridge`.

Published ports (`netplane.port_rules`), masquerading, isolation, drop counters. All functions are pure;
`netplane.libnftables` carries their text out as one transaction. What grows with the cluster is a set, a map
or a chain of its own, so that a change costs its own size, and a packet's way through the rules does not.
Packets of connections that exist meet one rule (`ct state`) at each hook: chains of translation see only the
first packet.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

from cluster.joining import is_ip
from netplane import gateway_modes
from netplane.ends import PORT_PREFIX
from netplane.model import Interface, Segment
from netplane.proxy_protocol import MARK, VERSIONS

TABLE = "shoal"
# Raised when the tables' frame changes, so that a newer daemon does not adopt an older one's.
LAYOUT = "layout_6"
FAMILIES = ("ip", "ip6")
Place = tuple[str, str]
"""Family and name of a set or a map."""
LOST_TUNNEL = "lost_tunnel"
"""The counter of frames for cluster networks that came from nowhere they could come from."""

_ADDRESS = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1"}
# A link-local client can't be forwarded, nor, by IPv6, one on loopback: what it asks is the host's own.
_NOT_FORWARDED = {"ip": "", "ip6": "ip6 saddr { ::1, fe80::/10 } return"}

# Who comes from nowhere: the frames' sender is no node, or is one that is not reached through that link. The
# tunnel's own packets need no connection tracking, which would cost as much as that of what is inside.
_TUNNEL = f"""
  set peers {{ type ipv4_addr; }}
  set tunnel_ports {{ type inet_service; }}
  counter {LOST_TUNNEL} {{ }}
  chain tunnel {{
    ip saddr @peers fib saddr . iif oif exists accept
    counter name {LOST_TUNNEL} drop
  }}
  chain untracked_in {{
    type filter hook prerouting priority -300
    udp dport @tunnel_ports notrack
  }}
  chain untracked_out {{
    type filter hook output priority -300
    udp dport @tunnel_ports notrack
  }}
"""
ADVERTISED: Place = ("bridge", "advertised")
"""Of which addresses guests may say that they have them by IPv6. nft has no word for that part of a neighbour
advertisement, and its older versions have no set of what they have no word for."""
_ADVERTISED = "set advertised { typeof iifname . ether saddr . @th,64,128; }"
_ADVERTISEMENTS = f"""
  {_ADVERTISED}
  chain advertisements {{
    iifname . ether saddr . @th,64,128 @advertised return
    counter name iifname map @guarded drop
  }}
"""
_GUARD = """table bridge {table} {{
  set senders {{ type ifname . ether_addr . ipv4_addr; }}
  set senders6 {{ type ifname . ether_addr . ipv6_addr; }}
  map guarded {{ type ifname : counter; }}
  chain {layout} {{
  }}
  {advertisements}
  chain prerouting {{
    type filter hook prerouting priority -300
    iifname != "{port}*" accept
    iifname . ether saddr . ip saddr @senders accept
    {jump}
    iifname . ether saddr . ip6 saddr @senders6 accept
    iifname . ether saddr . arp saddr ip @senders accept
    counter name iifname map @guarded drop
  }}
}}
"""


def _frame(family: str) -> str:
    address = _ADDRESS[family]
    tunnel = _TUNNEL if family == "ip" else ""
    to_tunnel = "udp dport @tunnel_ports goto tunnel" if family == "ip" else ""
    control = f"{family} daddr @nodes tcp dport @control_ports"
    return f"""table {family} {TABLE} {{
  set bridges {{ type ifname; }}
  set subnets {{ type {address}; flags interval; }}
  set masqueraded {{ type {address}; flags interval; }}
  set gateways {{ type {address}; }}
  set control_ports {{ type inet_service; }}
  set nodes {{ type {address}; }}
  map ports {{ type inet_proto . inet_service : verdict; }}
  map host_ports {{ type inet_proto . inet_service : {address} . inet_service; }}
  map host_ports_at {{ type {address} . inet_proto . inet_service : {address} . inet_service; }}
  map internal {{ type ifname : counter; }}
  map isolated {{ type ifname : counter; }}
  map to_host {{ type ifname : counter; }}
  {gateway_modes.sets(family)}
  {tunnel}
  chain {LAYOUT} {{
  }}
  chain proxy_v1 {{
  }}
  chain proxy_v2 {{
  }}
  chain published {{
    {_NOT_FORWARDED[family]}
    meta l4proto . th dport vmap @ports
    meta l4proto {{ tcp, udp, sctp }} dnat {family} addr . port to \
      {family} daddr . meta l4proto . th dport map @host_ports_at
    meta l4proto {{ tcp, udp, sctp }} dnat {family} addr . port to meta l4proto . th dport map @host_ports
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    fib daddr type local goto published
  }}
  chain output {{
    type nat hook output priority -100
    fib daddr type local goto published
  }}
  chain into_networks {{
    {family} saddr {_LOOPBACK[family]} masquerade
    ct status dnat {family} saddr @subnets masquerade
  }}
  chain postrouting {{
    type nat hook postrouting priority 100
    oifname @bridges goto into_networks
    {family} saddr @masqueraded masquerade
  }}
  chain from_networks {{
    {family} daddr {_LOOPBACK[family]} counter name iifname map @to_host drop
    {family} daddr @gateways fib daddr . iif type != local counter name iifname map @to_host drop
    tcp dport @control_ports counter name iifname map @to_host reject with tcp reset
  }}
  chain input {{
    type filter hook input priority 0
    {to_tunnel}
    ct state established,related accept
    iifname @bridges goto from_networks
  }}
  chain forward {{
    type filter hook forward priority 0
    ct state established,related accept
    counter name iifname map @internal drop
    counter name oifname map @internal drop
    iifname @bridges {control} counter name iifname map @to_host reject with tcp reset
    oifname @bridges ct status dnat accept
    {gateway_modes.rules(family)}
    counter name oifname map @isolated drop
  }}
}}
"""


def _proxies(family: str, ports: Mapping[str, int]) -> list[str]:
    """Commands that lead connections for each version of the PROXY protocol to where its process listens, but
    for those that it makes itself; without one, they are refused."""
    lines = []
    for version in VERSIONS:
        strangers = f"meta l4proto tcp meta mark != {MARK:#x}"
        way = f"redirect to :{ports[version]}" if version in ports else "reject with tcp reset"
        lines += [
            f"flush chain {family} {TABLE} proxy_{version}",
            f"add rule {family} {TABLE} proxy_{version} {strangers} {way}",
        ]
    return lines


def proxies(ports: Mapping[str, int]) -> str:
    """Where the process for the PROXY protocol listens, by version; nowhere if there is none."""
    return _commands([line for family in FAMILIES for line in _proxies(family, ports)])


def check_advertised() -> str:
    """What is refused where advertisements can't be told apart."""
    return f"add table bridge {TABLE}\nadd {_ADVERTISED.replace('set ', f'set bridge {TABLE} ', 1)}\n"


def _guard(*, advertised: bool) -> str:
    return _GUARD.format(
        table=TABLE,
        layout=LAYOUT,
        port=PORT_PREFIX,
        advertisements=_ADVERTISEMENTS if advertised else "",
        jump="icmpv6 type nd-neighbor-advert jump advertisements" if advertised else "",
    )


def frame(*, guard: bool = True, advertised: bool = True) -> str:
    """Replace all tables by empty frames. `guard`: also that of the family `bridge`, if the kernel has it;
    `advertised`: with that set."""
    families = (*FAMILIES, "bridge") if guard else FAMILIES
    fresh = "".join(f"table {each} {TABLE}\ndelete table {each} {TABLE}\n" for each in families)
    return (
        fresh + "".join(_frame(each) for each in FAMILIES) + (_guard(advertised=advertised) if guard else "")
    )


# --- sets, maps and counters ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """What named sets, maps (key → value, "" in a set) and counters hold, as texts."""

    elements: Mapping[Place, Mapping[str, str]]
    counters: frozenset[Place] = frozenset()


NOTHING = Contents({})


def change(before: Contents, after: Contents) -> str:
    """The commands that turn these contents into those; "" if they are the same."""
    lines: list[str] = []
    additions: list[str] = []
    for place in sorted(before.elements.keys() | after.elements.keys()):
        old, new = before.elements.get(place, {}), after.elements.get(place, {})
        gone = sorted(key for key in old if new.get(key) != old[key])
        come = sorted(key for key in new if old.get(key) != new[key])
        if gone:
            lines.append(f"delete {_elements(place, gone)}")
        if come:
            additions.append(f"add {_elements(place, (_pair(key, new[key]) for key in come))}")
    lines += [_counter("delete", each) for each in sorted(before.counters - after.counters)]
    lines += [_counter("add", each) for each in sorted(after.counters - before.counters)]
    return _commands([*lines, *additions])


def networks(segments: Iterable[Segment], *, guard: bool = True) -> Contents:
    """Which bridges there are, what may pass between them, and who is masqueraded."""
    known = [each for each in segments if each.child is None]
    elements: dict[Place, dict[str, str]] = {}
    counters: set[Place] = set()
    for family in FAMILIES:
        subnets = {each: _subnets(family, each) for each in known}
        # The default bridge's address is how any container is told to reach the host.
        gateways = {
            gateway
            for segment in known
            if segment.resolves_names
            for _, gateway in subnets[segment]
            if gateway
        }
        outgoing = {
            subnet
            for segment in known
            if segment.masquerade and not segment.internal
            if gateway_modes.mode(segment, family) != gateway_modes.ROUTED
            for subnet, _ in subnets[segment]
        }
        everything = {subnet for each in subnets.values() for subnet, _ in each}
        elements |= {
            (family, "bridges"): dict.fromkeys((_quoted(each.bridge) for each in known), ""),
            (family, "subnets"): dict.fromkeys(_outermost(everything), ""),
            (family, "masqueraded"): dict.fromkeys(_outermost(outgoing), ""),
            (family, "gateways"): dict.fromkeys(gateways, ""),
            (family, "isolated"): _counted(known, "isolated"),
            (family, "internal"): _counted((each for each in known if each.internal), "isolated"),
            (family, "to_host"): _counted(known, "to_host"),
            **gateway_modes.bridges(known, family),
        }
        counters |= {(family, f"{kind}_{each.bridge}") for each in known for kind in ("isolated", "to_host")}
    if guard:
        counters |= {("bridge", f"spoofed_{each.bridge}") for each in known}
    return Contents(elements, frozenset(counters))


def cluster(nodes: Collection[str], tunnel_port: int) -> Contents:
    """Where the cluster's nodes are: frames of its networks come from them alone. Without any, from all.

    A word that is no address is left out: one node's wrong word must not keep the others from their rules.
    """
    known = {each: "" for each in nodes if is_ip(each)}
    four = {each: "" for each in known if ":" not in each}
    ports = {str(tunnel_port): ""} if four and tunnel_port else {}
    return Contents(
        {
            ("ip", "peers"): four,
            ("ip", "nodes"): four,
            ("ip6", "nodes"): {each: "" for each in known if ":" in each},
            ("ip", "tunnel_ports"): ports,
        }
    )


def control(ports: Iterable[int]) -> Contents:
    """Ports of this host, and of the nodes, that no container may connect to."""
    known = {str(port): "" for port in ports}
    return Contents({(family, "control_ports"): known for family in FAMILIES})


def guests(interfaces: Iterable[Interface], bridges: Mapping[str, str]) -> Contents:
    """What ends of cluster networks may send as: their own MAC and addresses, and nothing else.

    Args: bridges: the device of each network id.
    """
    ports: dict[str, str] = {}
    senders: dict[str, str] = {}
    senders6: dict[str, str] = {}
    advertised: dict[str, str] = {}
    for each in interfaces:
        port, sender = _quoted(each.port), f"{_quoted(each.port)} . {each.mac}"
        ports[port] = _quoted(f"spoofed_{bridges[each.network_id]}")
        # 0.0.0.0 and :: ask whether an address is free, before it is taken.
        for address in (each.address, *each.link_local, "0.0.0.0"):
            if address:
                senders[f"{sender} . {address}"] = ""
        if each.address6:
            for address in (each.address6, link_local_of(each.mac), "::"):
                senders6[f"{sender} . {address}"] = ""
            for address in (each.address6, link_local_of(each.mac)):
                advertised[f"{sender} . {int(IPv6Address(address)):#x}"] = ""
    return Contents(
        {
            ("bridge", "guarded"): ports,
            ("bridge", "senders"): senders,
            ("bridge", "senders6"): senders6,
            ADVERTISED: advertised,
        }
    )


def link_local_of(mac: str) -> str:
    """The link-local address that a link gives itself (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    parts = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + parts))


def _subnets(family: str, segment: Segment) -> list[tuple[str, str]]:
    """A segment's subnets of a family, each with the bridge's own address in it."""
    if family == "ip":
        return [(str(subnet), gateway) for subnet, gateway in segment.subnets]
    return [(str(segment.subnet6), segment.gateway6)] if segment.subnet6 is not None else []


def _outermost(subnets: Iterable[str]) -> list[str]:
    """The subnets without those that lie within another: a removed network's bridge may outlive it for a
    moment, and a set of intervals takes no overlap."""
    found: list[IPv4Network | IPv6Network] = []
    for subnet in sorted((ip_network(each) for each in subnets), key=lambda each: each.prefixlen):
        if not any(subnet.overlaps(other) for other in found):
            found.append(subnet)
    return [str(each) for each in found]


def _counted(segments: Iterable[Segment], kind: str) -> dict[str, str]:
    return {_quoted(each.bridge): _quoted(f"{kind}_{each.bridge}") for each in segments}


def _quoted(text: str) -> str:
    return f'"{text}"'


def _pair(key: str, value: str) -> str:
    return f"{key} : {value}" if value else key


def _elements(place: Place, entries: Iterable[str]) -> str:
    family, name = place
    return f"element {family} {TABLE} {name} {{ {', '.join(entries)} }}"


def _counter(verb: str, place: Place) -> str:
    family, name = place
    return f"{verb} counter {family} {TABLE} {name}"


def _commands(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
