"""What the zones of some networks answer to a query, as bytes. Pure."""

from collections.abc import Callable, Mapping, Sequence

from netplane.dns import wire
from netplane.dns.zone import Zone

ZoneOf = Callable[[str], Zone]
NO_LINKS: Mapping[bytes, bytes] = {}
# A name with several addresses is answered in so many orders in turn.
_ORDERS = 16


def answers(
    zone_of: ZoneOf,
    data: bytes,
    networks: Sequence[str],
    *,
    limit: int | None = None,
    links: Mapping[bytes, bytes] = NO_LINKS,
) -> tuple[bytes, ...] | None:
    """The answers to give in turn, or None if another server must be asked.

    The first of the networks that has records of a name answers. A name that is known has no records but
    those here: other types get an empty answer. `limit` None: as many bytes as the asker takes by UDP.
    `links`: names of the asker's own → those in its networks.
    """
    query = wire.parse(data)
    if query is None:
        return (wire.refuse(data),)
    if query.edns > 0:
        return (wire.answer(data, query, code=wire.BADVERS),)
    name = links.get(query.name, query.name)
    find = _pointers if name.endswith(b".arpa") else _records
    known = False
    for network in networks:
        found = find(zone_of(network), name, query.kind)
        if found is None:
            continue
        known = True
        records, more = found
        if records:
            return tuple(
                wire.answer(data, query, turned, more, limit=limit or query.limit)
                for turned in _orders(records)
            )
    return (wire.answer(data, query),) if known else None


_Found = tuple[Sequence[bytes], Sequence[bytes]] | None
"""Records and what goes with them; None: the zone does not know the name."""


def _pointers(zone: Zone, name: bytes, kind: int) -> _Found:
    target = zone.pointers.get(wire.pointer_address(name) or "")
    if target is None:
        return None
    return [wire.pointer_record(target)] if kind in (wire.PTR, wire.ANY) else (), ()


def _records(zone: Zone, name: bytes, kind: int) -> _Found:
    if name in zone.services:
        if kind not in (wire.SRV, wire.ANY):
            return (), ()
        hosts = zone.services[name]
        records = [wire.service_record(port, target) for port, target in hosts]
        more = []
        for _, target in hosts:
            key, owner = target.lower().encode(), wire.encoded(target)
            for packed in (*zone.names.get(key, ()), *zone.names6.get(key, ())):
                more.append(wire.address_record(packed, owner))
        return records, more
    if name not in zone.names and name not in zone.names6:
        return None
    addresses: Sequence[bytes] = ()
    if kind == wire.AAAA:
        addresses = zone.names6.get(name, ())
    elif kind in (wire.A, wire.ANY):
        addresses = zone.names.get(name, ())
    return [wire.address_record(packed) for packed in addresses], ()


def _orders(records: Sequence[bytes]) -> list[Sequence[bytes]]:
    """The records in several orders; if they are few, each is first as often as any other."""
    step = -(-len(records) // _ORDERS)
    return [(*records[start:], *records[:start]) for start in range(0, len(records), step)]
