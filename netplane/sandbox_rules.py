"""The rules inside a sandbox's namespace: name server, service addresses, replies through the mesh.

One table `shoal` each for IPv4 and, where a network has it, IPv6. A new connection to a service's address is
led by maps alone: `sizes` has the number of its backends, `ways` the chain for that number, which draws one
of so many slots, and `backends` the address in that slot. So a change of backends is a few elements, whatever
else the table holds; no rule is written for it, for which the kernel would check the whole table. Chains are
made beforehand, in a transaction of their own. Connections that exist stay where they are, because
connection tracking remembers them. The slot is drawn at random: a turn that each sandbox counted for itself
would send the first connection of every short-lived client to the same backend.

A task on the ingress network gets the mesh's rules: the node through which a connection came is read from
the frame's source MAC (its last four bytes are that node's address there) into the connection's mark;
replies are routed by that mark and leave with a destination MAC made from it, so that they return through
the same node, which knows how to undo its address translation. The zone, also from the MAC, keeps apart two
connections of one client address and port that came through different nodes; the empty chain at `input`
makes connection tracking resolve the clash of their replies.
"""

import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence

from netplane.netlink import nft
from netplane.netlink import nft_expressions as ex
from netplane.resolv import NAME_SERVER

TABLE = "shoal"
# Some service addresses that were sent a datagram: only if there are any are there flows to look for among
# all the host's connections, which takes milliseconds.
USED_BY_UDP = "used_by_udp"
_SIZES, _WAYS, _BACKENDS = "sizes", "ways", "backends"
_OUTPUT, _REFUSE = "output", "spread_0"
_RAW, _MANGLE, _DNAT, _SNAT = -300, -150, -100, 100

Vips = Mapping[str, Sequence[str]]
"""Service address → addresses of its backends by slot, all IPv4."""


def whole(
    *, dns_port: int, mesh: tuple[str, int] | None, networks: Sequence[tuple[Vips, str]], had_ipv6: bool
) -> list[bytes]:
    """All tables, in place of any that are there.

    Args: mesh: the ingress interface's name and number; networks: of each its service addresses and its IPv6
    subnet, or ""; had_ipv6: there may be a table of IPv6.
    """
    sizes = sizes_of(vips for vips, _ in networks)
    prefixes = [prefix_of(subnet6) for _, subnet6 in networks if subnet6]
    messages = _frame(nft.IP)
    if dns_port:
        for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
            messages.append(
                nft.rule(
                    TABLE,
                    _OUTPUT,
                    ex.match_destination(NAME_SERVER),
                    ex.match_protocol(protocol),
                    ex.match_destination_port(ex.DNS_PORT),
                    ex.destination_nat(NAME_SERVER, dns_port),
                )
            )
    messages += _lead(nft.IP)
    if prefixes:
        messages += _frame(nft.IP6) + _lead(nft.IP6)
    elif had_ipv6:
        messages += [nft.table(TABLE, nft.IP6), nft.delete_table(TABLE, nft.IP6)]
    messages += spread(sizes, ipv6=bool(prefixes))
    if mesh is not None:
        device, index = mesh
        for family in (nft.IP, nft.IP6) if prefixes else (nft.IP,):
            messages += _mesh(index, family)
        messages += _to_entry_node(device)
    for vips, subnet6 in networks:
        messages += balance({}, vips, subnet6)
    return messages


def sizes_of(networks: Iterable[Vips]) -> set[int]:
    """How many backends service addresses have: for each number there must be a chain (see `spread`)."""
    return {len(backends) for vips in networks for backends in vips.values()}


def spread(sizes: Collection[int], *, ipv6: bool) -> list[bytes]:
    """The messages that make the chains for these numbers of backends.

    They go in a transaction before that of elements which lead to them: while one is committed, a packet may
    see an element of it, but not yet its rules.
    """
    return [
        message
        for family in ((nft.IP, nft.IP6) if ipv6 else (nft.IP,))
        for size in sorted(sizes)
        if size
        for message in _chain(size, family)
    ]


def balance(before: Vips, after: Vips, subnet6: str = "") -> list[bytes]:
    """The messages that turn the service addresses `before` of a network into those `after`; none if nothing
    changed. The chains for the sizes in `after` must be there."""
    messages = _balance(before, after, b"")
    return messages + _balance(before, after, prefix_of(subnet6)) if subnet6 else messages


def arrange(before: Sequence[str], wanted: Collection[str]) -> tuple[str, ...]:
    """Backends by slot: who stays keeps its slot, as far as there are no gaps, so that little is written."""
    new = sorted(set(wanted).difference(before), key=socket.inet_aton, reverse=True)
    slots = [address if address in wanted else "" for address in before]
    for slot, address in enumerate(slots):
        if not address and new:
            slots[slot] = new.pop()
    slots += reversed(new)
    for slot in range(len(slots) - 1, -1, -1):
        if not slots[slot]:
            last = slots.pop()
            if slot < len(slots):
                slots[slot] = last
    return tuple(slots)


def prefix_of(subnet6: str) -> bytes:
    """What precedes the IPv4 address in an IPv6 address of the subnet (cluster.dataplane.address6_for)."""
    return ipaddress.IPv6Network(subnet6).network_address.packed[:12]


def _frame(family: int) -> list[bytes]:
    kind = "ipv4_addr" if family == nft.IP else "ipv6_addr"
    return [
        nft.table(TABLE, family),
        nft.delete_table(TABLE, family),
        nft.table(TABLE, family),
        nft.value_map(TABLE, _SIZES, [kind], "mark", 1, family),
        nft.verdict_map(TABLE, _WAYS, "mark", 2, family),
        nft.value_map(TABLE, _BACKENDS, [kind, "mark"], kind, 3, family),
        nft.address_set(TABLE, USED_BY_UDP, 16, 4, family),
        nft.chain(TABLE, _REFUSE, family),
        nft.rule(TABLE, _REFUSE, ex.match_protocol(socket.IPPROTO_TCP), ex.reject_reset(), family=family),
        nft.rule(TABLE, _REFUSE, ex.reject_unreachable(family), family=family),
        *nft.put_goto(TABLE, _WAYS, {_number(0): _REFUSE}, family),
        nft.base_chain(TABLE, _OUTPUT, "nat", nft.OUTPUT, _DNAT, family=family),
    ]


def _lead(family: int) -> list[bytes]:
    return [
        nft.rule(TABLE, _OUTPUT, ex.destination_value(_SIZES, family), ex.go_by_value(_WAYS), family=family)
    ]


def _chain(size: int, family: int) -> list[bytes]:
    name = f"spread_{size}"
    note = ex.match_protocol(socket.IPPROTO_UDP) + ex.note_destination(USED_BY_UDP, family)
    draw = [ex.pick(size, _BACKENDS, family)] if size > 1 else []
    # The slot that was drawn may be gone, if the size was read just before a change. Then the first serves.
    ways = [*draw, ex.pick_first(_BACKENDS, family)]
    return [
        nft.chain(TABLE, name, family),
        nft.rule(TABLE, name, note, family=family),
        *(nft.rule(TABLE, name, way, ex.nat_to_loaded(family), family=family) for way in ways),
        nft.rule(TABLE, name, ex.go_to(_REFUSE), family=family),
        *nft.put_goto(TABLE, _WAYS, {_number(size): name}, family),
    ]


def _balance(before: Vips, after: Vips, prefix: bytes) -> list[bytes]:
    family = nft.IP6 if prefix else nft.IP
    gone: dict[str, list[bytes]] = {_SIZES: [], _BACKENDS: []}
    new: dict[str, dict[bytes, bytes]] = {_SIZES: {}, _BACKENDS: {}}
    for vip in sorted(before.keys() | after.keys()):
        was, now = before.get(vip), after.get(vip)
        key = prefix + socket.inet_aton(vip)
        if was is not None and (now is None or len(now) != len(was)):
            gone[_SIZES].append(key)
        if now is not None and (was is None or len(now) != len(was)):
            new[_SIZES][key] = _number(len(now))
        old, young = was or (), now or ()
        for slot in range(max(len(old), len(young))):
            address = young[slot] if slot < len(young) else ""
            if slot < len(old) and old[slot] == address:
                continue
            if slot < len(old):
                gone[_BACKENDS].append(key + _number(slot))
            if address:
                new[_BACKENDS][key + _number(slot)] = prefix + socket.inet_aton(address)
    return [
        message
        for name in (_SIZES, _BACKENDS)
        for message in (
            *nft.take(TABLE, name, gone[name], family),
            *nft.put(TABLE, name, new[name], family),
        )
    ]


def _number(value: int) -> bytes:
    return struct.pack("=I", value)


def _mesh(index: int, family: int) -> list[bytes]:
    zone = ex.match_input(index) + ex.load_frame(10, 2) + ex.set_original_zone()
    # The packet's mark as well: the socket that accepts it has that mark then (tcp_fwmark_accept), and with
    # it its way back, so that the rule for replies changes nothing and none is routed a second time.
    mark = (
        ex.match_input(index)
        + ex.match_new()
        + ex.load_frame(8, 4)
        + ex.set_connection_mark()
        + ex.set_packet_mark()
    )
    reply = ex.match_reply() + ex.load_connection_mark() + ex.set_packet_mark()
    return [
        nft.base_chain(TABLE, "raw", "filter", nft.PREROUTING, _RAW, family=family),
        nft.rule(TABLE, "raw", zone, family=family),
        nft.base_chain(TABLE, "entry", "filter", nft.PREROUTING, _MANGLE, family=family),
        nft.rule(TABLE, "entry", mark, family=family),
        nft.base_chain(TABLE, "input", "nat", nft.INPUT, _SNAT, family=family),
        nft.base_chain(TABLE, "replies", "route", nft.OUTPUT, _MANGLE, family=family),
        nft.rule(TABLE, "replies", reply, family=family),
    ]


def _to_entry_node(device: str) -> list[bytes]:
    return [
        nft.table(TABLE, nft.NETDEV),
        nft.delete_table(TABLE, nft.NETDEV),
        nft.table(TABLE, nft.NETDEV),
        nft.base_chain(TABLE, "egress", "filter", nft.EGRESS, 0, family=nft.NETDEV, device=device),
        nft.rule(TABLE, "egress", ex.load_packet_mark(), ex.write_frame(2, 4), family=nft.NETDEV),
    ]
