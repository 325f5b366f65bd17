"""DNS answers made from bytes, read back by dnspython."""

import socket

import dns.flags
import dns.message
import dns.opcode
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


def answer_of(data: bytes, addresses: list[bytes], limit: int) -> bytes:
    return wire.answer(data, parsed(data), [wire.address_record(each) for each in addresses], limit=limit)


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


@given(_NAMES, _ADDRESSES, st.booleans())
def test_addresses_fit_and_are_whole(name: str, addresses: list[bytes], edns: bool) -> None:
    data = dns.message.make_query(name, "A", use_edns=edns).to_wire()
    answer = answer_of(data, addresses, 512)
    assert len(answer) <= 512
    message = dns.message.from_wire(answer)
    assert message.id == dns.message.from_wire(data).id
    found = {str(item) for rrset in message.answer for item in rrset}
    assert found <= {socket.inet_ntoa(address) for address in addresses}
    assert message.edns == (0 if edns else -1)
    assert bool(message.flags & dns.flags.TC) == (len(found) < len(addresses))


def test_pointer() -> None:
    data = dns.message.make_query("4.3.2.1.in-addr.arpa", "PTR").to_wire()
    query = parsed(data)
    assert wire.pointer_address(query.name) == "1.2.3.4"
    assert wire.pointer_address(b"4.3.2.in-addr.arpa") is None
    assert wire.pointer_address(b"4.3.2.999.in-addr.arpa") is None
    nibbles = ".".join(f"{0x20010DB8 << 96 | 0xA:032x}"[::-1])
    assert wire.pointer_address(f"{nibbles}.ip6.arpa".encode()) == "2001:db8::a"
    assert wire.pointer_address(nibbles[2:].encode() + b".ip6.arpa") is None
    assert wire.pointer_address(b"x" + nibbles[1:].encode() + b".ip6.arpa") is None
    (rrset,) = dns.message.from_wire(wire.answer(data, query, [wire.pointer_record("web.1.x.app")])).answer
    assert str(rrset[0]) == "web.1.x.app."


@given(st.text("aBcDeFgHiJ", min_size=1, max_size=20))
def test_the_question_comes_back_in_its_own_case(name: str) -> None:
    data = dns.message.make_query(name, "A").to_wire()
    assert parsed(data).name == name.lower().encode()
    assert answer_of(data, [bytes(4)], 512)[12 : parsed(data).end] == data[12 : parsed(data).end]


def test_what_is_refused() -> None:
    strange = dns.message.make_query("version.bind", "TXT", "CH").to_wire()
    assert dns.message.from_wire(wire.refuse(strange)).rcode() == dns.rcode.REFUSED
    assert dns.message.from_wire(wire.refuse(strange)).question
    other = dns.message.make_query("web", "A")
    other.set_opcode(dns.opcode.NOTIFY)
    assert dns.message.from_wire(wire.refuse(other.to_wire())).rcode() == dns.rcode.NOTIMP
    assert dns.message.from_wire(wire.refuse(strange[:14])).rcode() == dns.rcode.FORMERR
    assert wire.refuse(strange[:11]) == b""
    assert wire.refuse(dns.message.make_response(dns.message.from_wire(strange)).to_wire()) == b""


def test_a_newer_edns_is_told_so() -> None:
    data = dns.message.make_query("web", "A", use_edns=3).to_wire()
    message = dns.message.from_wire(wire.answer(data, parsed(data), code=wire.BADVERS))
    assert message.rcode() == dns.rcode.BADVERS


def test_server_failure() -> None:
    data = dns.message.make_query("example.com", "A").to_wire()
    message = dns.message.from_wire(wire.answer(data, parsed(data), code=wire.SERVFAIL))
    assert message.rcode() == dns.rcode.SERVFAIL
    assert message.answer == []
