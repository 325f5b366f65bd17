"""The ends of networks in sandboxes, of every kind: a veth on a bridge, or a link on top of another device.

Each function answers for one interface; the builder puts the messages of many into batches.
"""

import errno
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from netplane import netns
from netplane.errors import NetworkError
from netplane.model import Child, Interface, Segment
from netplane.netlink import child, route
from netplane.netlink.wire import ROUTE, NetlinkError, NetlinkSocket

PORT_PREFIX = "shv"
_DOOMED = 0x53484F41  # the group of links that are about to be deleted


def port_name(sandbox_id: str, number: int) -> str:
    """The name of a sandbox's port on a bridge: at most 15 characters, the same on every run."""
    return f"{PORT_PREFIX}{hashlib.blake2b(sandbox_id.encode(), digest_size=5).hexdigest()}{number:x}"


def port_index(name: str) -> int:
    """The number of a port on a bridge: far above those that the kernel gives out."""
    return 0x40000000 | int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 2


def make(
    interfaces: Sequence[Interface], segments: Mapping[str, Segment], namespace: int, host: NetlinkSocket
) -> None:
    """Make the interfaces in a namespace (a descriptor), still down. Raises NetworkError."""
    veths = [_veth(each, namespace) for each in interfaces if not each.kind]
    if veths:
        host.execute(veths, "making a veth pair")
    for each in interfaces:
        if each.kind:
            segment = segments[each.network_id]
            assert segment.child is not None, "such an interface is on a segment of children"
            mac = "" if segment.child.mac else each.mac
            make_child(
                each.device,
                each.index,
                segment,
                segment.child,
                mtu=each.mtu,
                mac=mac,
                namespace=namespace,
                host=host,
            )


def join(interface: Interface, segment: Segment) -> list[bytes]:
    """What the host does once the inner end is configured."""
    if interface.kind:
        return []
    messages = [
        route.join_bridge(interface.port, segment.index),
        # The bridge may still know the address's MAC behind the tunnel, from a task on another node that had
        # it before; a sandbox that only listens would never correct that.
        route.bridge_entry(port_index(interface.port), interface.mac),
    ]
    messages += [route.neighbour(segment.index, each, interface.mac) for each in _addresses(interface)]
    return messages


def _addresses(interface: Interface) -> tuple[str, ...]:
    return tuple(each for each in (interface.address, interface.address6) if each)


def leave(interfaces: Sequence[Interface], segments: Mapping[str, Segment]) -> list[bytes]:
    """What takes the host's side of interfaces away; links on other devices have none."""
    ports = [each for each in interfaces if not each.kind]
    messages = [
        route.delete_neighbour(segments[each.network_id].index, address)
        for each in ports
        if each.network_id in segments
        for address in _addresses(each)
    ]
    if ports:
        messages += [route.to_group(each.port, _DOOMED) for each in ports]
        messages.append(route.delete_group(_DOOMED))
    return messages


def leave_inside(path: Path, interfaces: Sequence[Interface]) -> None:
    """Delete the links on other devices from a namespace at once: some let no other be made while they are
    there, and a namespace goes only when the last process is out of it. None there is no error.

    Stays in the namespace: must run in a thread that ends afterwards.
    """
    children = [each for each in interfaces if each.kind]
    if not children or not netns.is_namespace(path):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.enter_namespace(descriptor)
    finally:
        os.close(descriptor)
    inside = NetlinkSocket(ROUTE)
    try:
        messages = [child.delete_link(each.index) for each in children]
        inside.execute(messages, "deleting links", ignore=(errno.ENODEV,))
    finally:
        inside.close()


def _veth(interface: Interface, namespace: int) -> bytes:
    return route.veth(
        interface.port,
        port_index(interface.port),
        mtu=interface.mtu,
        namespace=namespace,
        peer=interface.device,
        peer_index=interface.index,
        peer_mac=interface.mac,
    )


def make_child(
    name: str,
    index: int,
    segment: Segment,
    settings: Child,
    *,
    mtu: int,
    mac: str,
    namespace: int,
    host: NetlinkSocket,
) -> None:
    """Make a link on a segment's device, in the namespace of a descriptor. `index` 0: any number.

    Raises NetworkError.
    """
    message = child.child(
        name,
        index,
        parent=segment.index,
        kind=settings.kind,
        mode=settings.mode,
        flags=settings.flags,
        mtu=mtu,
        mac=mac,
        namespace=namespace,
    )
    article = "an" if settings.kind.startswith("i") else "a"
    try:
        host.execute([message], f"making {article} {settings.kind} link on {segment.bridge}")
    except NetlinkError as error:
        raise NetworkError(f"{error}{_explained(error, settings.kind, segment.bridge)}") from error


def _explained(error: NetlinkError, kind: str, parent: str) -> str:
    match error.errno:
        case errno.EOPNOTSUPP:
            return f": this node's kernel has no {kind} (`modprobe {kind}`)"
        case errno.EBUSY:
            return f": {parent} is part of a bridge or bond, or has links of another kind"
        case errno.EINVAL:
            return f": {parent} may be held in passthru mode, or be of a kind that takes no {kind}"
        case errno.ENODEV:
            return f": the device {parent} is gone"
    return ""
