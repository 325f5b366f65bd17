"""macvlan and ipvlan: every sandbox has a link of its own on a device of the host."""

import hashlib
import ipaddress
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from cluster.errors import Forbidden
from netplane import ends, links
from netplane.bridge_options import read_mtu
from netplane.drivers import addressing, parents
from netplane.drivers.driver import Draft
from netplane.errors import InvalidNetwork
from netplane.links import Link
from netplane.model import Child, LocalNetwork, Segment
from netplane.netlink import child
from netplane.netlink.wire import ROUTE, NetlinkSocket

PARENT = "parent"
_TRIAL_PREFIX = "shp"
_MTU_WITHOUT_PARENT = 1500


class _Children(ABC):
    """What both kinds have in common."""

    @abstractmethod
    def _child(self, options: Mapping[str, str], parent: Link | None) -> Child:
        """What sandboxes get. Raises InvalidNetwork for options that can't be meant."""

    def plan(self, draft: Draft) -> LocalNetwork:
        """Options, parent, subnets."""
        spec, options = draft.spec, draft.spec.options or {}
        settings = self._child(options, None)
        parent = options.get(PARENT, "")
        asked = read_mtu(options)
        if parent:
            device = parents.check(parent)
            mtu = parents.mtu_of(asked, device, ipv6=spec.enable_ipv6)
        else:
            mtu = asked or _MTU_WITHOUT_PARENT
            addressing.check_mtu(mtu, ipv6=spec.enable_ipv6)
        parent = parent or parents.own_device(draft.id)
        for other in draft.others:
            if other.parent == parent:
                _check_together(other, draft.driver, passthru=_passthru(settings))
        found = addressing.choose(draft, gateways=not (spec.internal or settings.routed), apart=False)
        return LocalNetwork(
            id=draft.id,
            name=spec.name,
            driver=draft.driver,
            created_at=draft.created_at,
            spec=spec,
            subnet=found.subnet,
            gateway=found.gateway,
            subnet6=found.subnet6,
            gateway6=found.gateway6,
            mtu=mtu,
            parent=parent,
        )

    def open(self, network: LocalNetwork) -> Segment | None:
        """The parent, made if it is a VLAN that is not there."""
        options = network.spec.options or {}
        parent = parents.ensure(network)
        settings = self._child(options, parent)
        return Segment(
            network_id=network.id,
            bridge=parent.name,
            index=parent.index,
            mtu=min(network.mtu, parent.mtu),
            subnet=ipaddress.IPv4Network(network.subnet) if network.subnet else None,
            gateway=network.gateway,
            # What has no parent leads nowhere, as with dockerd.
            internal=network.internal or network.parent == parents.own_device(network.id),
            subnet6=ipaddress.IPv6Network(network.subnet6) if network.subnet6 else None,
            gateway6=network.gateway6,
            masquerade=False,
            child=settings,
        )

    def check(self, segment: Segment) -> None:
        """Make a link as sandboxes get it, and delete it."""
        settings = segment.child
        assert settings is not None, "such networks have children"
        name = _TRIAL_PREFIX + hashlib.blake2b(segment.network_id.encode(), digest_size=5).hexdigest()
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        host = NetlinkSocket(ROUTE)
        try:
            ends.make_child(name, 0, segment, settings, mtu=segment.mtu, mac="", namespace=here, host=host)
        finally:
            host.close()
            os.close(here)
        links.delete_links([name])

    def close(self, network: LocalNetwork, others: Collection[LocalNetwork]) -> None:
        """Remove the parent if Shoal made it."""
        parents.release(network, others)

    def sweep(self, known: Collection[LocalNetwork]) -> None:
        """Parents that Shoal made for networks that are gone, and links of trials."""
        parents.sweep(known)
        trials = [name for name in links.list_links() if name.startswith(_TRIAL_PREFIX)]
        if trials:
            links.delete_links(trials)

    def describe(self, network: LocalNetwork) -> Mapping[str, str]:
        """As asked, with the parent."""
        return {PARENT: network.parent, **(network.spec.options or {})}


class MacvlanNetworks(_Children):
    """Sandboxes with MACs of their own on the wire."""

    def _child(self, options: Mapping[str, str], parent: Link | None) -> Child:
        mode = options.get("macvlan_mode", "") or "bridge"
        if mode not in child.MACVLAN_MODES:
            raise InvalidNetwork(
                f"requested macvlan mode '{mode}' is not valid: one of "
                f"{', '.join(child.MACVLAN_MODES)}; bridge is the default"
            )
        # In passthru mode the link takes the parent's address over.
        mac = parent.mac if parent is not None and mode == "passthru" else ""
        return Child(child.MACVLAN, child.MACVLAN_MODES[mode], mac=mac)


class IpvlanNetworks(_Children):
    """Sandboxes that share the parent's MAC."""

    def _child(self, options: Mapping[str, str], parent: Link | None) -> Child:
        mode, flag = options.get("ipvlan_mode", "") or "l2", options.get("ipvlan_flag", "") or "bridge"
        if mode not in child.IPVLAN_MODES:
            raise InvalidNetwork(
                f"requested ipvlan mode '{mode}' is not valid: one of {', '.join(child.IPVLAN_MODES)}; "
                "l2 is the default"
            )
        if flag not in child.IPVLAN_FLAGS:
            raise InvalidNetwork(
                f"requested ipvlan flag '{flag}' is not valid: one of {', '.join(child.IPVLAN_FLAGS)}; "
                "bridge is the default"
            )
        return Child(
            child.IPVLAN,
            child.IPVLAN_MODES[mode],
            child.IPVLAN_FLAGS[flag],
            routed=mode != "l2",
            mac=parent.mac if parent is not None else "",
        )


def most(network: LocalNetwork) -> int:
    """How many sandboxes a network takes; 0: as many as it has addresses."""
    return 1 if network.driver == child.MACVLAN and _mode(network) == "passthru" else 0


def _mode(network: LocalNetwork) -> str:
    return (network.spec.options or {}).get("macvlan_mode", "")


def _passthru(settings: Child) -> bool:
    return settings.kind == child.MACVLAN and settings.mode == child.MACVLAN_MODES["passthru"]


def _check_together(other: LocalNetwork, driver: str, *, passthru: bool) -> None:
    """Whether a network can share its parent with another."""
    if other.driver != driver:
        raise Forbidden(
            f"network {other.name} uses the parent {other.parent} with driver {other.driver}: the kernel "
            "takes one kind of them on a device"
        )
    if passthru or _mode(other) == "passthru":
        raise Forbidden(
            f"network {other.name} is already using parent interface {other.parent}: in passthru mode a "
            "device serves one network"
        )
