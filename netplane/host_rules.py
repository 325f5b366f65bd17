"""The text of the host's one nftables table, `shoal`: published ports, masquerading, isolation.

All functions are pure; `netplane.libnftables` carries their text out as one transaction. What grows with
the cluster is a map or a chain of its own, so that a change costs its own size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.dataplane import Protocol
from cluster.publish_at import is_interface
from netplane.model import HostPort, Segment

TABLE = "shoal"
# Raised when the table's frame changes, so that a newer daemon does not adopt an older one's.
LAYOUT = "layout_1"

_FRAME = f"""table ip {TABLE} {{
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  map ports {{ type inet_proto . inet_service : verdict; }}
  map host_ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map host_ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain {LAYOUT} {{
  }}
  chain published {{
    meta l4proto . th dport vmap @ports
    meta l4proto {{ tcp, udp, sctp }} dnat ip addr . port to \
      ip daddr . meta l4proto . th dport map @host_ports_at
    meta l4proto {{ tcp, udp, sctp }} dnat ip addr . port to meta l4proto . th dport map @host_ports
  }}
  chain egress {{
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    fib daddr type local goto published
  }}
  chain output {{
    type nat hook output priority -100
    fib daddr type local goto published
  }}
  chain postrouting {{
    type nat hook postrouting priority 100
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    goto egress
  }}
  chain forward {{
    type filter hook forward priority 0
    iifname @internal drop
    oifname @internal drop
    ct state established,related accept
    oifname @bridges ct status dnat accept
    oifname @bridges drop
  }}
}}
"""


@dataclass(frozen=True)
class Published:
    """Where a port that is published on every node leads: its backends, in order. None: refuse at once."""

    protocol: Protocol
    port: int
    target: int
    backends: tuple[str, ...]
    at: tuple[str, ...] = ()
    """Addresses, subnets and interfaces at which alone it is open; empty: everywhere."""


PortKey = tuple[Protocol, int]


def frame() -> str:
    """Replace the whole table by an empty frame."""
    return f"table ip {TABLE}\ndelete table ip {TABLE}\n{_FRAME}"


def networks(segments: Iterable[Segment]) -> str:
    """Say which bridges there are, which are internal, and who is masqueraded."""
    known = sorted(segments, key=lambda segment: segment.bridge)
    lines = [
        f"flush set ip {TABLE} bridges",
        f"flush set ip {TABLE} internal",
        f"flush chain ip {TABLE} egress",
    ]
    if known:
        lines.append(_elements("bridges", [f'"{segment.bridge}"' for segment in known]))
    internal = [f'"{segment.bridge}"' for segment in known if segment.internal]
    if internal:
        lines.append(_elements("internal", internal))
    for segment in known:
        for subnet, _ in segment.subnets:
            rule = f"add rule ip {TABLE} egress ip saddr {subnet} oifname"
            # Who reaches its own bridge again through a published port must get its answers that way.
            lines.append(f"{rule} @bridges ct status dnat masquerade")
            if not segment.internal and segment.masquerade:
                lines.append(f"{rule} != @bridges masquerade")
    return _commands(lines)


def networks6(segments: Iterable[Segment]) -> str:
    """The whole table of IPv6, in place of any that is there: who is masqueraded, and isolation. Networks of
    this node alone have IPv6, so it is small; without one, there is no table."""
    known = sorted((each for each in segments if each.subnet6), key=lambda segment: segment.bridge)
    head = f"table ip6 {TABLE}\ndelete table ip6 {TABLE}\n"
    if not known:
        return head
    bridges = ", ".join(f'"{segment.bridge}"' for segment in known)
    ways_out = [
        f"    ip6 saddr {segment.subnet6} oifname != {{ {bridges} }} masquerade"
        for segment in known
        if not segment.internal and segment.masquerade
    ]
    walls = [
        f'    {direction} "{segment.bridge}" drop'
        for segment in known
        if segment.internal
        for direction in ("iifname", "oifname")
    ]
    return head + _commands(
        [
            f"table ip6 {TABLE} {{",
            "  chain postrouting {",
            "    type nat hook postrouting priority 100",
            *ways_out,
            "  }",
            "  chain forward {",
            "    type filter hook forward priority 0",
            *walls,
            "    ct state established,related accept",
            f"    oifname {{ {bridges} }} drop",
            "  }",
            "}",
        ]
    )


def publish(before: Mapping[PortKey, Published], after: Mapping[PortKey, Published]) -> str:
    """The commands that turn the published ports `before` into those `after`; "" if nothing changed."""
    lines: list[str] = []
    for key in sorted(before.keys() - after.keys()):
        lines.append(f"delete element ip {TABLE} ports {{ {_port_key(key)} }}")
        lines.append(f"flush chain ip {TABLE} {_chain(key)}")
        lines.append(f"delete chain ip {TABLE} {_chain(key)}")
    for key in sorted(after):
        if before.get(key) == after[key]:
            continue
        if key in before:
            lines.append(f"flush chain ip {TABLE} {_chain(key)}")
        else:
            lines.append(f"add chain ip {TABLE} {_chain(key)}")
        lines.extend(f"add rule ip {TABLE} {_chain(key)} {rule}" for rule in _balance(after[key]))
        if key not in before:
            lines.append(f"add element ip {TABLE} ports {{ {_port_key(key)} : goto {_chain(key)} }}")
    return _commands(lines)


def open_host_ports(address: str, ports: Sequence[HostPort]) -> str:
    """Lead ports of this host to a sandbox's address."""
    return _commands([f"add element ip {TABLE} {_host_port(port, address)}" for port in ports])


def close_host_ports(ports: Sequence[HostPort]) -> str:
    """Take ports of this host back."""
    return _commands([f"delete element ip {TABLE} {_host_port(port, '')}" for port in ports])


def _commands(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _elements(name: str, values: Sequence[str]) -> str:
    return f"add element ip {TABLE} {name} {{ {', '.join(values)} }}"


def _port_key(key: PortKey) -> str:
    return f"{key[0]} . {key[1]}"


def _chain(key: PortKey) -> str:
    return f"port_{key[0]}_{key[1]}"


def _elsewhere(places: Sequence[str]) -> list[str]:
    """The rule that leaves packets to other places than these to the host itself. What the host sends has
    come in by no interface, so the condition on those lets it pass."""
    addresses = [place for place in places if not is_interface(place)]
    interfaces = [f'"{place}"' for place in places if is_interface(place)]
    conditions = [f"ip daddr != {{ {', '.join(addresses)} }}"] if addresses else []
    conditions += [f"iifname != {{ {', '.join(interfaces)} }}"] if interfaces else []
    return [f"{' '.join(conditions)} return"] if conditions else []


def _balance(published: Published) -> list[str]:
    return _elsewhere(published.at) + _destinations(published)


def _destinations(published: Published) -> list[str]:
    if not published.backends:
        refusals = ["reject"]
        if published.protocol is Protocol.TCP:
            refusals = ["meta l4proto tcp reject with tcp reset"]
        return refusals
    slots = ", ".join(
        f"{slot} : {address} . {published.target}" for slot, address in enumerate(published.backends)
    )
    return [
        f"meta l4proto {published.protocol} dnat ip addr . port to "
        f"numgen inc mod {len(published.backends)} map {{ {slots} }}",
        # For a packet that meets the rule above while its map is not in force: the kernel commits rules and
        # elements one after the other.
        f"meta l4proto {published.protocol} dnat to {published.backends[0]}:{published.target}",
    ]


def _host_port(port: HostPort, address: str) -> str:
    name, key = "host_ports", f"{port.protocol} . {port.published}"
    if port.host_ip not in ("", "0.0.0.0"):
        name, key = "host_ports_at", f"{port.host_ip} . {key}"
    return f"{name} {{ {key}{f' : {address} . {port.target}' if address else ''} }}"
