"""The rules inside a sandbox's namespace: name server, service addresses, replies through the mesh.

One table `shoal`. Each service address is a key of a verdict map that leads to a chain of its own, whose one
rule spreads new connections over the backends; a change replaces that rule, and connections that exist
stay where they are, because connection tracking remembers them.

A task on the ingress network gets the mesh's rules: the node through which a connection came is read from
the frame's source MAC (its last four bytes are that node's address there) into the connection's mark;
replies are routed by that mark and leave with a destination MAC made from it, so that they return through
the same node, which knows how to undo its address translation. The zone, also from the MAC, keeps apart two
connections of one client address and port that came through different nodes; the empty chain at `input`
makes connection tracking resolve the clash of their replies.
"""

import socket
from collections.abc import Mapping, Sequence

from netplane.netlink import nft
from netplane.resolv import NAME_SERVER

TABLE = "shoal"
# Some service addresses that were sent a datagram: only if there are any are there flows to look for among
# all the host's connections, which takes milliseconds.
USED_BY_UDP = "used_by_udp"
_VIPS = "vips"
_OUTPUT = "output"
_RAW, _MANGLE, _DNAT, _SNAT = -300, -150, -100, 100

Vips = Mapping[str, Sequence[str]]


def whole(*, dns_port: int, mesh: tuple[str, int] | None, vips: Vips) -> list[bytes]:
    """The whole table, in place of any that is there. `mesh` is the ingress interface's name and number."""
    messages = [
        nft.table(TABLE),
        nft.delete_table(TABLE),
        nft.table(TABLE),
        nft.verdict_map(TABLE, _VIPS),
        nft.address_set(TABLE, USED_BY_UDP, size=16),
        nft.base_chain(TABLE, _OUTPUT, "nat", nft.OUTPUT, _DNAT),
    ]
    if dns_port:
        for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
            messages.append(
                nft.rule(
                    TABLE,
                    _OUTPUT,
                    nft.match_destination(NAME_SERVER),
                    nft.match_protocol(protocol),
                    nft.match_destination_port(nft.DNS_PORT),
                    nft.destination_nat(NAME_SERVER, dns_port),
                )
            )
    messages.append(nft.rule(TABLE, _OUTPUT, nft.lookup_destination(_VIPS)))
    if mesh is not None:
        messages += _mesh(*mesh)
    return messages + balance({}, vips)


def balance(before: Vips, after: Vips) -> list[bytes]:
    """The messages that turn the service addresses `before` into those `after`; none if nothing changed."""
    messages: list[bytes] = []
    gone = sorted(before.keys() - after.keys())
    if gone:
        messages.append(nft.unmap(TABLE, _VIPS, gone))
        for vip in gone:
            messages += [nft.flush_chain(TABLE, chain_of(vip)), nft.delete_chain(TABLE, chain_of(vip))]
    new: list[str] = []
    set_id = 2  # those up to here are of the named sets, when the same batch makes them
    for vip in sorted(after):
        if vip in before and tuple(before[vip]) == tuple(after[vip]):
            continue
        if vip in before:
            messages.append(nft.flush_chain(TABLE, chain_of(vip)))
        else:
            messages.append(nft.chain(TABLE, chain_of(vip)))
            new.append(vip)
        if after[vip]:
            set_id += 1
            messages.append(
                nft.rule(
                    TABLE,
                    chain_of(vip),
                    nft.match_protocol(socket.IPPROTO_UDP),
                    nft.note_destination(USED_BY_UDP),
                )
            )
            messages += nft.spread(TABLE, chain_of(vip), after[vip], set_id)
            # While a transaction is committed, a packet may meet a rule whose map is not in force yet, or no
            # longer: the kernel switches rules and elements one after the other. Then this one serves.
            fallback = nft.destination_nat_address(after[vip][0])
            messages.append(nft.rule(TABLE, chain_of(vip), fallback))
        else:
            messages += [
                nft.rule(TABLE, chain_of(vip), nft.match_protocol(socket.IPPROTO_TCP), nft.reject_reset()),
                nft.rule(TABLE, chain_of(vip), nft.reject_unreachable()),
            ]
    for start in range(0, len(new), 500):
        part = new[start : start + 500]
        messages.append(nft.map_goto(TABLE, _VIPS, [(vip, chain_of(vip)) for vip in part]))
    return messages


def chain_of(vip: str) -> str:
    """The chain of a service address."""
    return f"vip_{vip}"


def _mesh(device: str, index: int) -> list[bytes]:
    return [
        nft.base_chain(TABLE, "raw", "filter", nft.PREROUTING, _RAW),
        nft.rule(TABLE, "raw", nft.match_input(index), nft.load_frame(10, 2), nft.set_original_zone()),
        nft.base_chain(TABLE, "entry", "filter", nft.PREROUTING, _MANGLE),
        nft.rule(
            TABLE,
            "entry",
            nft.match_input(index),
            nft.match_new(),
            nft.load_frame(8, 4),
            nft.set_connection_mark(),
        ),
        nft.base_chain(TABLE, "input", "nat", nft.INPUT, _SNAT),
        nft.base_chain(TABLE, "replies", "route", nft.OUTPUT, _MANGLE),
        nft.rule(TABLE, "replies", nft.match_reply(), nft.load_connection_mark(), nft.set_packet_mark()),
        nft.table(TABLE, nft.NETDEV),
        nft.delete_table(TABLE, nft.NETDEV),
        nft.table(TABLE, nft.NETDEV),
        nft.base_chain(TABLE, "egress", "filter", nft.EGRESS, 0, family=nft.NETDEV, device=device),
        nft.rule(TABLE, "egress", nft.load_packet_mark(), nft.write_frame(2, 4), family=nft.NETDEV),
    ]
