"""Gateway modes of bridge networks: how far others reach a container at its own address, by IP version.

`nat`: not at all. `nat-unprotected`: at every port, from outside of this host's networks. `routed`: at its
published ports only, from anywhere; no port of the host is taken, and what leaves keeps its address. Who
wants to reach such a container needs a route to its subnet through this host. The rules are in the host's
tables (`netplane.host_rules`), as sets that are empty where no network has such a mode. Pure.

From trusted links of the host (`trusted_host_interfaces`) published ports are reached as with `routed`, in
any mode.

Source: Docker's documentation of `com.docker.network.bridge.gateway_mode_ipv4` and `_ipv6`.
"""

from collections.abc import Iterable, Sequence

from netplane.model import HostPort, Interface, Segment, way_out, way_out6

NAT, ROUTED, UNPROTECTED, ISOLATED = "nat", "routed", "nat-unprotected", "isolated"
MODES = (NAT, ROUTED, UNPROTECTED, ISOLATED)
FAMILIES = ("ip", "ip6")

_ADDRESS = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
_ICMP = {"ip": "icmp", "ip6": "ipv6-icmp"}


def sets(family: str) -> str:
    """The sets of a family's table."""
    return f"""set unprotected {{ type ifname; }}
  set routed {{ type ifname; }}
  set trusted {{ type ifname . ifname; }}
  set routed_ports {{ type {_ADDRESS[family]} . inet_proto . inet_service; }}"""


def rules(family: str) -> str:
    """The rules of the chain `forward`: they come before what drops all that is left."""
    return f"""oifname @unprotected iifname != @bridges accept
    oifname @routed {family} daddr . meta l4proto . th dport @routed_ports accept
    iifname . oifname @trusted {family} daddr . meta l4proto . th dport @routed_ports accept
    oifname @routed meta l4proto {_ICMP[family]} accept"""


def mode(segment: Segment, family: str) -> str:
    """A segment's mode in a family."""
    return segment.gateway_mode if family == "ip" else segment.gateway_mode6


def bridges(segments: Iterable[Segment], family: str) -> dict[tuple[str, str], dict[str, str]]:
    """What the sets of bridges hold."""
    known = [each for each in segments if not each.internal]
    trusted = {f'"{link}" . "{each.bridge}"': "" for each in known for link in each.trusted}
    return {
        (family, "trusted"): trusted,
        **{
            (family, name): {f'"{each.bridge}"': "" for each in known if mode(each, family) == wanted}
            for name, wanted in (("unprotected", UNPROTECTED), ("routed", ROUTED))
        },
    }


def without_host_ports(interface: Interface) -> bool:
    """Whether all of an interface's addresses are reached directly: then no port of the host is taken."""
    return (interface.direct or not interface.address) and (interface.direct6 or not interface.address6)


def translated(interfaces: Sequence[Interface], address: str, address6: str) -> tuple[str, str]:
    """The addresses that ports of the host lead to: of those that published ports are meant for, the ones
    that are not reached directly; else ""."""
    direct = [each for each in interfaces if each.direct]
    direct6 = [each for each in interfaces if each.direct6]
    return (
        "" if address in [each.address for each in direct] else address,
        "" if address6 in [each.address6 for each in direct6] else address6,
    )


def open_ports(verb: str, interfaces: Sequence[Interface], ports: Sequence[HostPort]) -> str:
    """The commands that `add` or `delete` a sandbox's published ports to those that others reach directly."""
    leading, leading6 = way_out(interfaces), way_out6(interfaces)
    addresses = (
        leading.address if leading is not None and (leading.direct or leading.trusted) else "",
        leading6.address6 if leading6 is not None and (leading6.direct6 or leading6.trusted) else "",
    )
    targets = sorted({(str(port.protocol), port.target) for port in ports})
    return "".join(
        f"{verb} element {family} shoal routed_ports {{ {address} . {protocol} . {target} }}\n"
        for family, address in zip(FAMILIES, addresses, strict=True)
        if address
        for protocol, target in targets
    )
