"""DNS answers made from bytes, read back by dnspython."""

import socket

import dns.message
import dns.rcode
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st

from netplane.dns import wire

_LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
_NAMES = st.lists(_LABEL, min_size=1, max_size=6).map(".".join)
_ADDRESSES = st.lists(st.binary(min_size=4, max_size=4), max_size=80, unique=True)


def parsed(data: bytes) -> wire.Query:
    query = wire.parse(data)
    assert query is not None
    return query


@given(_NAMES, st.sampled_from(["A", "AAAA", "PTR", "TXT"]), st.sampled_from([None, 1232]))
def test_parse_reads_what_dnspython_writes(name: str, kind: str, payload: int | None) -> None:
    data = dns.message.make_query(name.upper(), kind, use_edns=payload is not None, payload=payload).to_wire()
    query = parsed(data)
    assert query.name == name.encode()
    assert query.kind == dns.rdatatype.from_text(kind)
    assert query.limit == (payload or wire.UDP_LIMIT)


@given(st.binary(max_size=300))
def test_parse_never_raises(data: bytes) -> None:
    query = wire.parse(data)
    assert query is None or query.end <= len(data)


@given(_NAMES, _ADDRESSES)
def test_addresses_fit_and_are_whole(name: str, addresses: list[bytes]) -> None:
    data = dns.message.make_query(name, "A").to_wire()
    answer = wire.answer_addresses(data, parsed(data), addresses, limit=512)
    assert len(answer) <= 512
    message = dns.message.from_wire(answer)
    assert message.id == dns.message.from_wire(data).id
    found = {str(item) for rrset in message.answer for item in rrset}
    assert found <= {socket.inet_ntoa(address) for address in addresses}
    assert bool(message.flags & dns.flags.TC) == (len(found) < len(addresses))


def test_pointer() -> None:
    data = dns.message.make_query("4.3.2.1.in-addr.arpa", "PTR").to_wire()
    query = parsed(data)
    assert wire.pointer_address(query.name) == "1.2.3.4"
    assert wire.pointer_address(b"4.3.2.in-addr.arpa") is None
    assert wire.pointer_address(b"4.3.2.999.in-addr.arpa") is None
    (rrset,) = dns.message.from_wire(wire.answer_pointer(data, query, "web.1.x.app")).answer
    assert str(rrset[0]) == "web.1.x.app."


def test_server_failure() -> None:
    data = dns.message.make_query("example.com", "A").to_wire()
    message = dns.message.from_wire(wire.answer_empty(data, parsed(data), wire.SERVFAIL))
    assert message.rcode() == dns.rcode.SERVFAIL
    assert message.answer == []
