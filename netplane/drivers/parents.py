"""The device under macvlan and ipvlan links: one of the host's, a VLAN of one, or one of Shoal's own.

A VLAN that Shoal makes carries the network's id in its alias, so that it is known again after a crash, and
what somebody else made is never removed. It gets both in one message with its final name: until then it has
a name that a sweep knows.
"""

import errno
import hashlib
import re
from collections.abc import Collection

from netplane import links
from netplane.drivers import addressing
from netplane.errors import InvalidNetwork, NetworkError
from netplane.links import Link
from netplane.model import LocalNetwork

OWN_PREFIX, UNFINISHED_PREFIX = "shd", "shw"
_ALIAS = "shoal:"
_VLAN = re.compile(r"(?P<base>[^/\s]+)\.(?P<tag>[0-9]{1,4})", re.ASCII)
_NOT_USERS = ("shoal", "shb", "shv", "sho", "shx", "shs", "shp", OWN_PREFIX, UNFINISHED_PREFIX)
"""How the names of Shoal's own devices begin."""
_LONGEST = 15
_OTHER_END = "p"


def own_device(network_id: str) -> str:
    """The name of the device of a network that has no parent."""
    return OWN_PREFIX + _digest(network_id)


def check(parent: str) -> Link:
    """The device that a parent is, or that its VLAN is to be of. Raises InvalidNetwork if there is none."""
    present = links.list_links()
    base = parent
    if parent not in present and (vlan := _vlan(parent)) is not None:
        base = vlan[0]
    found = present.get(base)
    if found is None:
        there = ", ".join(sorted(name for name in present if _users(name))) or "none"
        raise InvalidNetwork(
            f"parent device {base} does not exist on this node, which has these: {there}; name one, or a "
            "VLAN of one (DEVICE.NUMBER)"
        )
    if base == "lo":
        raise InvalidNetwork("the loopback device lo can't be a parent")
    if not found.up:
        raise InvalidNetwork(f"parent device {base} is down: `ip link set {base} up`")
    return found


def ensure(network: LocalNetwork) -> Link:
    """The network's parent device, made where it is Shoal's to make. Raises NetworkError."""
    present = links.list_links()
    if (found := present.get(network.parent)) is not None:
        return found
    if network.parent == own_device(network.id):
        _make_own(network.parent, network.mtu)
    else:
        base = check(network.parent)
        vlan = _vlan(network.parent)
        assert vlan is not None, "a parent that is no device is a VLAN"
        _make_vlan(network, base, vlan[1])
    return links.list_links()[network.parent]


def release(network: LocalNetwork, others: Collection[LocalNetwork]) -> None:
    """Remove the device if Shoal made it and no other network needs it."""
    if any(other.parent == network.parent for other in others):
        return
    found = links.list_links().get(network.parent)
    if found is not None and (found.name.startswith(OWN_PREFIX) or found.alias.startswith(_ALIAS)):
        links.delete_links([network.parent])


def sweep(known: Collection[LocalNetwork]) -> None:
    """Remove devices that Shoal made and that no network has."""
    wanted = {network.parent for network in known}
    stale = [
        link.name
        for link in links.list_links().values()
        if link.name.removesuffix(_OTHER_END) not in wanted
        and link.name not in wanted
        and (link.name.startswith((OWN_PREFIX, UNFINISHED_PREFIX)) or link.alias.startswith(_ALIAS))
    ]
    if stale:
        links.delete_links(stale)


def _make_own(name: str, mtu: int) -> None:
    """A device that leads nowhere: a dummy, or where the kernel has none a veth whose other end is idle."""
    try:
        links.add_link(name, "dummy", mtu=mtu)
    except links.KernelRefused as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        links.add_link(name, "veth", mtu=mtu, peer={"ifname": name + _OTHER_END, "mtu": mtu})
        links.set_up(name + _OTHER_END)
    links.set_up(name)


def _make_vlan(network: LocalNetwork, base: Link, tag: int) -> None:
    unfinished = UNFINISHED_PREFIX + _digest(network.id)
    try:
        links.add_link(unfinished, "vlan", link=base.index, vlan_id=tag)
        links.rename(unfinished, network.parent, alias=f"{_ALIAS}{network.id}")
        links.set_up(network.parent)
    except links.KernelRefused as error:
        links.delete_links([unfinished])
        if error.errno == errno.EOPNOTSUPP:
            raise NetworkError(
                f"the VLAN {network.parent} can't be made: this node's kernel has no VLAN devices "
                "(`modprobe 8021q`); make the device by other means, or name another parent"
            ) from error
        if error.errno == errno.EEXIST:
            raise NetworkError(
                f"the VLAN {network.parent} can't be made: {base.name} has VLAN {tag} already, under another "
                "name"
            ) from error
        raise


def _vlan(parent: str) -> tuple[str, int] | None:
    match = _VLAN.fullmatch(parent)
    if match is None:
        return None
    tag = int(match["tag"])
    if not 1 <= tag <= 4094:
        raise InvalidNetwork(f"parent {parent}: VLANs have numbers from 1 to 4094")
    if len(parent) > _LONGEST:
        raise InvalidNetwork(f"parent {parent}: names of links have at most {_LONGEST} characters")
    return match["base"], tag


def _users(name: str) -> bool:
    return name != "lo" and not name.startswith(_NOT_USERS)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def mtu_of(network_mtu: int, parent: Link, *, ipv6: bool) -> int:
    """The MTU of links on a parent: the one asked for, 0 being the parent's. Raises InvalidNetwork."""
    if network_mtu > parent.mtu:
        raise InvalidNetwork(
            f"an MTU of {network_mtu} is more than that of the parent device {parent.name} ({parent.mtu})"
        )
    mtu = network_mtu or parent.mtu
    addressing.check_mtu(mtu, ipv6=ipv6)
    return mtu
