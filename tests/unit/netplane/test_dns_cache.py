"""What other servers said, and for how long it is kept."""

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from netplane.dns import cache
from netplane.dns.cache import Cache, lifetime

QUERY = dns.message.make_query("example.com", "A")
DATA = QUERY.to_wire()
SOA = dns.rrset.from_text("example.com.", 900, "IN", "SOA", "ns.example.com. root.example.com. 1 2 3 4 30")


def response(
    *answer: dns.rrset.RRset, soa: bool = False, code: int = dns.rcode.NOERROR
) -> dns.message.Message:
    made = dns.message.make_response(QUERY)
    made.answer.extend(answer)
    if soa:
        made.authority.append(SOA)
    made.set_rcode(dns.rcode.Rcode(code))
    return made


def address(ttl: int) -> dns.rrset.RRset:
    return dns.rrset.from_text("example.com.", ttl, "IN", "A", "192.0.2.1")


def kept_for(message: dns.message.Message) -> int | None:
    found = lifetime(message.to_wire(), len(DATA))
    return found[0] if found else None


def test_how_long() -> None:
    alias = dns.rrset.from_text("example.com.", 20, "IN", "CNAME", "example.com.")
    assert kept_for(response(address(60))) == 60
    assert kept_for(response(alias, address(60))) == 20
    assert kept_for(response(address(10**6))) == cache.LONGEST
    assert kept_for(response(soa=True)) == 30
    assert kept_for(response(soa=True, code=dns.rcode.NXDOMAIN)) == 30
    assert kept_for(response()) is None
    assert kept_for(response(code=dns.rcode.SERVFAIL, soa=True)) is None
    cut = response(address(60))
    cut.flags |= dns.flags.TC
    assert kept_for(cut) is None


def test_an_answer_ages_and_ends() -> None:
    kept = Cache()
    kept.put(DATA, len(DATA), response(address(60)).to_wire(), 100.0, tcp=False)
    again = dns.message.make_query("EXAMPLE.com", "A").to_wire()
    found = kept.get(again, len(again), 125.5, tcp=False)
    assert found is not None
    assert found[:2] == again[:2]
    assert found[12 : len(again)] == again[12:]
    assert dns.message.from_wire(found).answer[0].ttl == 35
    assert kept.get(DATA, len(DATA), 125.5, tcp=True) is None
    assert kept.get(DATA, len(DATA), 160.0, tcp=False) is None


def test_it_is_bounded() -> None:
    kept = Cache()
    for number in range(cache.MOST + 1):
        query = dns.message.make_query(f"n{number}.example.com", "A")
        made = dns.message.make_response(query)
        made.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.1"))
        kept.put(query.to_wire(), len(query.to_wire()), made.to_wire(), 0.0, tcp=False)
    first, last = (dns.message.make_query(f"n{n}.example.com", "A").to_wire() for n in (0, cache.MOST))
    assert kept.get(first, len(first), 1.0, tcp=False) is None
    assert kept.get(last, len(last), 1.0, tcp=False) is not None
