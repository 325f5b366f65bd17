"""Networks that are a wire outside (macvlan, ipvlan): containers have links on a device of the host."""

from collections.abc import Collection, Mapping

from netplane.drivers import parents
from netplane.links import Link
from netplane.model import Interface, LocalNetwork, SandboxRecord, way_out, way_out6
from netplane.netlink import child
from netplane.trace.model import Scene, within
from netplane.trace.progress import Walk
from netplane.trace.source import Source

_KINDS = (child.MACVLAN, child.IPVLAN)


def wire_of(scene: Scene, network_ids: Collection[str], address: str) -> LocalNetwork | None:
    """The first of these networks that is a wire and has an address's subnet."""
    found = (scene.local.get(each) for each in network_ids)
    return next(
        (
            each
            for each in found
            if each is not None
            and each.driver in _KINDS
            and any(within(address, subnet) for subnet in (each.subnet, each.subnet6) if subnet)
        ),
        None,
    )


def has_container(scene: Scene, network: LocalNetwork, address: str) -> bool:
    """Whether a container that Shoal knows has an address of a wire."""
    here = any(
        end.network_id == network.id and address in (end.address, end.address6)
        for each in scene.sandboxes.values()
        for end in each.interfaces
    )
    return here or scene.endpoint(network.id, address) is not None


def leaves(walk: Walk, interface: Interface | None, links: Mapping[str, Link], network: LocalNetwork) -> bool:
    """Whether packets come as far as the wire. `interface`: the sender's in the network, if not told yet."""
    parent = links.get(network.parent)
    if parent is None or not parent.up:
        walk.bad(
            "way",
            f"the device {network.parent}, which network {network.name} is on, is "
            f"{'gone' if parent is None else 'down'}",
            f"bring it up: `ip link set {network.parent} up`"
            if parent
            else "make it, and restart the container",
        )
        return False
    if interface is not None:
        walk.good(
            "way",
            f"{interface.device} → this node's {network.parent}, the wire that network {network.name} is on "
            f"(MTU {interface.mtu})",
        )  # fmt: skip
    return True


def meets(walk: Walk, source: Source, other: SandboxRecord, network: LocalNetwork, address: str) -> bool:
    """Whether a packet comes to a container of this node."""
    title = walk.scene.title(other)
    if source.is_host:
        walk.bad(
            "way",
            f"{address} is {title}, on a link of this node's device {network.parent}: the kernel carries "
            f"nothing between {network.driver} links and the host that they are on",
            "try from another machine of that wire, or put the container into a bridge network as well",
        )
        return False
    if other is source.sandbox:
        walk.good("way", f"{address} is {title} itself")
        return True
    options = network.spec.options or {}
    mode = options.get("macvlan_mode" if network.driver == child.MACVLAN else "ipvlan_flag", "") or "bridge"
    way = f"{address} is {title} on this node, on the wire of {network.parent}"
    if source.sandbox is None or mode in ("bridge", "passthru"):
        walk.good("way", f"{way}: a neighbour")
    elif mode == "private":
        walk.bad(
            "way",
            f"{address} is {title} on this node: in mode private containers of network {network.name} don't "
            "reach each other",
            f"make the network in mode bridge (the default), without {network.driver} mode private",
        )
        return False
    else:
        walk.unchecked(
            "way",
            "whether the switch outside sends back what comes from one of its ports, as mode vepa needs",
            way,
        )
    return True


def unknown(walk: Walk, network: LocalNetwork, address: str) -> None:
    """An address of the wire that none of Shoal's containers has."""
    if network.parent == parents.own_device(network.id):
        walk.bad(
            "way",
            f"nobody has {address} in network {network.name}, which has no wire outside",
            "the container may be gone: use its name instead of an address",
        )
        return
    peer = next((each for each in walk.scene.records.peers.values() if each.address == address), None)
    if peer is not None:
        walk.unchecked(
            "way", "whether it answers, which that node knows",
            f"{address} is node {peer.node_id}, on the wire of {network.parent}",
        )  # fmt: skip
        return
    router = address in (network.gateway, network.gateway6)
    walk.unchecked(
        "way",
        f"whether anything has {address} on the wire of {network.parent}: it is outside what Shoal knows"
        if not router
        else f"whether it answers: it is outside what Shoal knows, on the wire of {network.parent}",
        f"{address} is the router of network {network.name}" if router else "",
    )


def own_host(walk: Walk, source: Source, address: str) -> bool:
    """Tell of a way to the sender's own host by a wire. Returns whether it ends there."""
    if source.sandbox is None:
        return False
    scene, interfaces = walk.scene, source.sandbox.interfaces
    network = wire_of(scene, source.networks, address)
    if network is not None:
        walk.bad(
            "way",
            f"{address} is this node itself, and {source.title} is on a link of its device {network.parent}: "
            f"the kernel carries nothing between {network.driver} links and the host that they are on",
            "put the container into a bridge network as well, and use the address of that network's gateway",
        )
        return True
    leading = (way_out6 if ":" in address else way_out)(interfaces)
    if leading is None or not leading.kind:
        return False
    near = [cidr for each in interfaces for cidr in (each.cidr, each.cidr6) if cidr]
    if not any(within(address, cidr) for cidr in near):
        walk.unchecked(
            "way",
            f"whether the wire's router leads from {leading.device} to {address} and back, as this node's "
            "kernel does not",
        )
    return False
