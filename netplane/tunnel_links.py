"""WireGuard's links of this node, their addresses, and the routes through them. Runs in worker threads.

Nodes' ends of tunnels are in one subnet, of which the host has a route to each peer that it has a tunnel to,
and none to the rest: what has no tunnel goes nowhere, whatever other routes the host has.
"""

import errno
import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError as RouteError

from cluster.encryption import TUNNELS
from netplane import sysctl
from netplane.errors import NetworkError

PREFIX = "shs"
_OWN = re.compile(PREFIX + r"[0-9a-f]{6}e[0-9]{1,5}")  # netplane.encryption.device_name
_KINDS = frozenset(("wireguard", "tun"))
_NO_DETECTION = 0x02  # IFA_F_NODAD
_LAST = 4096  # the metric of the route that refuses: any other is better
_EXISTS, _NO_ROUTE, _NO_DEVICE = errno.EEXIST, errno.ESRCH, errno.ENODEV


@contextmanager
def _route(what: str) -> Iterator[Any]:
    try:
        with IPRoute(groups=0) as route:
            yield route
    except RouteError as error:
        raise NetworkError(f"{what}: {error.args[1] if len(error.args) > 1 else error}") from error


def add(name: str, kind: str) -> None:
    """Make a link of a kind, down. Raises NetworkError, also when the kernel has none of that kind."""
    with _route(f"making {kind} device {name}") as route:
        route.link("add", ifname=name, kind=kind)


def delete(name: str) -> None:
    """Delete a link. None there is no error."""
    with _route(f"deleting {name}") as route:
        for index in route.link_lookup(ifname=name):
            try:
                route.link("del", index=index)
            except RouteError as error:
                if error.code != _NO_DEVICE:
                    raise


def present() -> dict[str, tuple[int, str]]:
    """Shoal's WireGuard links by name: index and kind. A user's, whatever its name begins with, is none."""
    found = {}
    with _route("listing links") as route:
        for each in route.get_links():
            name = each.get_attr("IFLA_IFNAME")
            info = each.get_attr("IFLA_LINKINFO") if _OWN.fullmatch(name) else None
            if info and (kind := info.get_attr("IFLA_INFO_KIND")) in _KINDS:
                found[name] = each["index"], kind
    return found


def bring_up(name: str, address: str, mtu: int) -> int:
    """Give a link its address within the tunnels and set it up; returns its index."""
    sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "0")
    sysctl.write(f"ipv6/conf/{name}/accept_ra", "0", optional=True)
    sysctl.write(f"ipv6/conf/{name}/addr_gen_mode", "1", optional=True)  # no link-local address of its own
    with _route(f"setting up {name}") as route:
        (index,) = route.link_lookup(ifname=name) or (0,)
        route.link("set", index=index, mtu=mtu, state="up")
        route.addr("replace", index=index, family=10, address=address, prefixlen=128, flags=_NO_DETECTION)
    return int(index)


def routes() -> dict[str, int]:
    """The peers that the host has a route to: address → index of the link."""
    found = {}
    with _route("listing the tunnels' routes") as route:
        for each in route.get_routes(family=socket.AF_INET6, table=254):
            address, link = each.get_attr("RTA_DST"), each.get_attr("RTA_OIF")
            if each["dst_len"] == 128 and link and _inside(address):
                found[str(ipaddress.IPv6Address(address))] = int(link)
    return found


def lead(address: str, link: int) -> None:
    """What goes to a peer leaves by this link from now on; nothing is lost between two."""
    with _route(f"leading to {address}") as route:
        route.route("replace", family=socket.AF_INET6, dst=f"{address}/128", oif=link)


def forget(address: str) -> None:
    """Have no route to a peer."""
    with _route(f"forgetting {address}") as route:
        try:
            route.route("del", family=socket.AF_INET6, dst=f"{address}/128")
        except RouteError as error:
            if error.code != _NO_ROUTE:
                raise


def refuse_rest(*, refuse: bool) -> None:
    """What goes to a tunnel's end without a route of its own is refused; or no longer so."""
    with _route("refusing what has no tunnel") as route:
        try:
            route.route(
                "add" if refuse else "del",
                family=socket.AF_INET6,
                dst=str(TUNNELS),
                type="unreachable",
                priority=_LAST,
            )
        except RouteError as error:
            if error.code != (_EXISTS if refuse else _NO_ROUTE):
                raise


def check_port(port: int) -> None:
    """Raise NetworkError if another program has a UDP port."""
    for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((any_address, port))
            except OSError as error:
                raise NetworkError(
                    f"UDP port {port}, which WireGuard needs here, is taken: {error}"
                ) from error


def _inside(address: str | None) -> bool:
    return address is not None and ipaddress.IPv6Address(address) in TUNNELS
