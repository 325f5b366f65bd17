"""Bridges and VXLAN devices, through pyroute2: the cold part. Runs in worker threads, never in the loop."""

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError as RouteError

from cluster.publish_at import is_interface
from netplane import sysctl
from netplane.errors import NetworkError

# A VXLAN header and what carries it: outer Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
VXLAN_OVERHEAD = 50
_NO_DETECTION = 0x02  # IFA_F_NODAD
_UP = 0x01  # IFF_UP
_SCOPE_LINK = 253


@dataclass(frozen=True)
class Link:
    """A link of this namespace."""

    index: int
    name: str
    kind: str
    mtu: int
    mac: str = ""
    alias: str = ""
    up: bool = True


class KernelRefused(NetworkError):
    """The kernel refused a change of links; `errno` is its reason."""

    def __init__(self, message: str, errno: int) -> None:
        super().__init__(message)
        self.errno = errno


@contextmanager
def _route(what: str) -> Iterator[Any]:
    try:
        with IPRoute(groups=0) as route:
            yield route
    except RouteError as error:
        reason = error.args[1] if len(error.args) > 1 else error
        raise KernelRefused(f"{what}: {reason}", int(error.code)) from error


def list_links() -> dict[str, Link]:
    """All links by name."""
    found: dict[str, Link] = {}
    with _route("listing links") as route:
        for each in route.get_links():
            name = each.get_attr("IFLA_IFNAME")
            info = each.get_attr("IFLA_LINKINFO")
            kind = (info.get_attr("IFLA_INFO_KIND") or "") if info else ""
            found[name] = Link(
                each["index"],
                name,
                kind,
                each.get_attr("IFLA_MTU") or 0,
                each.get_attr("IFLA_ADDRESS") or "",
                each.get_attr("IFLA_IFALIAS") or "",
                up=bool(each["flags"] & _UP),
            )
    return found


def delete_links(names: list[str]) -> None:
    """Delete links; those that are gone already are no error."""
    with _route("deleting links") as route:
        for name in names:
            for index in route.link_lookup(ifname=name):
                try:
                    route.link("del", index=index)
                except RouteError as error:
                    if error.code != 19:  # ENODEV: gone meanwhile
                        raise


def add_link(name: str, kind: str, **settings: object) -> None:
    """A link that is still down; `settings` as pyroute2 names them. Raises KernelRefused."""
    with _route(f"making {kind} device {name}") as route:
        route.link("add", ifname=name, kind=kind, **settings)


def rename(name: str, final: str, *, alias: str) -> None:
    """Give a link that is down its name and its alias, both or none. Raises KernelRefused."""
    with _route(f"naming {final}") as route:
        for index in route.link_lookup(ifname=name):
            route.link("set", index=index, ifname=final, ifalias=alias)


def set_up(name: str) -> None:
    """Set a link up that is there for others only, without addresses of its own. Raises KernelRefused."""
    sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "1", optional=True)
    with _route(f"setting {name} up") as route:
        for index in route.link_lookup(ifname=name):
            route.link("set", index=index, state="up")


def clear_addresses(name: str) -> None:
    """Take every address from a link, if there is such a link."""
    with _route(f"taking the addresses of {name}") as route:
        for index in route.link_lookup(ifname=name):
            route.flush_addr(index=index, family=2)
            route.flush_addr(index=index, family=10)


def ensure_bridge(
    name: str, *, mac: str, mtu: int, address: str, address6: str = "", more: Sequence[str] = ()
) -> int:
    """A bridge that is up, with a MAC that stays and the addresses ("a.b.c.d/prefix", or "" for none; `more`
    besides).

    Returns its index. A bridge that exists is kept with its ports and brought to this state.
    """
    with _route(f"making bridge {name}") as route:
        indexes = route.link_lookup(ifname=name)
        if not indexes:
            route.link(
                "add",
                ifname=name,
                kind="bridge",
                address=mac,
                mtu=mtu,
                br_forward_delay=0,
                br_mcast_snooping=0,
            )
            indexes = route.link_lookup(ifname=name)
        else:
            _bring_in_line(route, indexes[0], mac=mac, mtu=mtu)
        index: int = indexes[0]
        sysctl.prepare_bridge(name, ipv6=bool(address6))
        has = {
            f"{each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}"
            for each in route.get_addr(index=index, family=2)
        }
        wanted = [each for each in (address, *more) if each]
        for stale in has.difference(wanted):
            ip, _, prefix = stale.partition("/")
            route.addr("del", index=index, address=ip, prefixlen=int(prefix))
        for each in wanted:
            if each not in has:
                ip, _, prefix = each.partition("/")
                route.addr("add", index=index, address=ip, prefixlen=int(prefix), broadcast=_broadcast(each))
        for stale6 in _global_addresses6(route, index) - {address6}:
            ip, _, prefix = stale6.partition("/")
            route.addr("del", index=index, family=10, address=ip, prefixlen=int(prefix))
        if address6:
            ip, _, prefix = address6.partition("/")
            # Told to do without duplicate detection: nobody else is on this link, and no one should wait.
            route.addr(
                "replace", index=index, family=10, address=ip, prefixlen=int(prefix), flags=_NO_DETECTION
            )
        route.link("set", index=index, state="up")
    return index


def _global_addresses6(route: Any, index: int) -> set[str]:
    """A link's IPv6 addresses but the link-local ones, with prefixes."""
    return {
        f"{each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}"
        for each in route.get_addr(index=index, family=10)
        if not ipaddress.IPv6Address(each.get_attr("IFA_ADDRESS")).is_link_local
    }


def _bring_in_line(route: Any, index: int, *, mac: str, mtu: int) -> None:
    """Only what differs: the kernel forgets the neighbours of a link whose MAC is set, even to what it is."""
    (link,) = route.get_links(index)
    if link.get_attr("IFLA_ADDRESS") != mac:
        route.link("set", index=index, address=mac)
    if link.get_attr("IFLA_MTU") != mtu:
        route.link("set", index=index, mtu=mtu)


def isolate_ports(names: Sequence[str]) -> None:
    """Let these ports of a bridge reach the bridge itself only, not each other."""
    with _route("isolating ports") as route:
        for name in names:
            for index in route.link_lookup(ifname=name):
                route.brport("set", index=index, isolated=1)


def ensure_vxlan(
    name: str, *, bridge: int, vni: int, local: str, port: int, mtu: int, ipv6: bool = False
) -> int:
    """A VXLAN device on a bridge that learns nothing and floods nothing: it knows what it is told.

    Returns its index. One with another VNI, end or port is replaced. With `ipv6` it can have IPv6 neighbours,
    for which it then answers; it has no address of its own.
    """
    with _route(f"making VXLAN device {name}") as route:
        for index in route.link_lookup(ifname=name):
            info = route.get_links(index)[0].get_attr("IFLA_LINKINFO")
            data = info.get_attr("IFLA_INFO_DATA")
            same = (
                data.get_attr("IFLA_VXLAN_ID") == vni
                and data.get_attr("IFLA_VXLAN_LOCAL6" if ":" in local else "IFLA_VXLAN_LOCAL") == local
                and data.get_attr("IFLA_VXLAN_PORT") == port
            )
            if same:
                _set_ipv6(name, on=ipv6)
                return int(index)
            route.link("del", index=index)
        route.link(
            "add",
            ifname=name,
            kind="vxlan",
            mtu=mtu,
            vxlan_id=vni,
            vxlan_port=port,
            **_vxlan_end(local),
            vxlan_learning=0,
            vxlan_proxy=1,
            vxlan_l2miss=0,
            vxlan_l3miss=0,
        )
        index = route.link_lookup(ifname=name)[0]
        _set_ipv6(name, on=ipv6)
        route.link("set", index=index, master=bridge, state="up")
    return int(index)


def _set_ipv6(name: str, *, on: bool) -> None:
    if on:
        sysctl.write(f"ipv6/conf/{name}/addr_gen_mode", "1")
        sysctl.write(f"ipv6/conf/{name}/accept_ra", "0")
    sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "0" if on else "1", optional=not on)


def _vxlan_end(local: str) -> dict[str, Any]:
    """Over IPv6 only inside WireGuard, which vouches for every byte: a checksum would be work for nothing."""
    if ":" not in local:
        return {"vxlan_local": local}
    return {"vxlan_local6": local, "vxlan_udp_zero_csum6_tx": 1, "vxlan_udp_zero_csum6_rx": 1}


def mtu_of_address(address: str) -> int:
    """The MTU of the link that holds an address; 1500 if none does."""
    with _route("looking for an address") as route:
        for each in route.get_addr(family=2):
            if each.get_attr("IFA_LOCAL") == address or each.get_attr("IFA_ADDRESS") == address:
                return int(route.get_links(each["index"])[0].get_attr("IFLA_MTU"))
    return 1500


def address_at(places: Sequence[str]) -> str:
    """The first IPv4 address of this host that a place means (address, subnet, interface), or ""."""
    with _route("looking for an address") as route:
        names = {each["index"]: each.get_attr("IFLA_IFNAME") for each in route.get_links()}
        held = [(each.get_attr("IFA_LOCAL"), names.get(each["index"])) for each in route.get_addr(family=2)]
    for place in places:
        for address, interface in held:
            if place == interface or (
                address
                and not is_interface(place)
                and ipaddress.ip_address(address) in ipaddress.ip_network(place, strict=False)
            ):
                return str(address)
    return ""


def own_addresses() -> set[str]:
    """All addresses of this host, IPv4 and IPv6."""
    with _route("listing addresses") as route:
        return {str(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")) for each in route.get_addr()}


def routed_subnets(ignore: set[str]) -> list[ipaddress.IPv4Network]:
    """Subnets that the host has routes to, except through the links named in `ignore`."""
    found: list[ipaddress.IPv4Network] = []
    with _route("listing routes") as route:
        names = {each["index"]: each.get_attr("IFLA_IFNAME") for each in route.get_links()}
        for each in route.get_routes(family=2, table=254):
            destination = each.get_attr("RTA_DST")
            if destination and names.get(each.get_attr("RTA_OIF")) not in ignore:
                found.append(ipaddress.IPv4Network(f"{destination}/{each['dst_len']}", strict=False))
    return found


def connected_subnets(version: int) -> list[tuple[str, ipaddress.IPv4Network | ipaddress.IPv6Network]]:
    """The subnets of an IP version that the host has on its links, with the links' names."""
    found: list[tuple[str, ipaddress.IPv4Network | ipaddress.IPv6Network]] = []
    with _route("listing routes") as route:
        names = {each["index"]: each.get_attr("IFLA_IFNAME") for each in route.get_links()}
        for each in route.get_routes(family=2 if version == 4 else 10, table=254):
            destination, link = each.get_attr("RTA_DST"), names.get(each.get_attr("RTA_OIF"), "")
            on_link = each["scope"] == _SCOPE_LINK if version == 4 else not each.get_attr("RTA_GATEWAY")
            if not destination or not on_link or destination.startswith("fe80:"):
                continue
            found.append((link, ipaddress.ip_network(f"{destination}/{each['dst_len']}", strict=False)))
    return found


def _broadcast(address: str) -> str:
    return str(ipaddress.IPv4Interface(address).network.broadcast_address)


def tunnel_entries(index: int) -> dict[str, str]:
    """What a VXLAN device was told before, by an earlier run: address in the network → node's address."""
    found: dict[str, str] = {}
    with _route("listing tunnel entries") as route:
        for each in route.get_neighbours(family=7, ifindex=index):
            mac, node = each.get_attr("NDA_LLADDR"), each.get_attr("NDA_DST")
            if node and mac and mac.startswith("02:42:"):
                octets = bytes.fromhex(mac.replace(":", ""))[2:]
                found[str(ipaddress.IPv4Address(octets))] = str(node)
    return found
