"""The name server's answers, and what it asks of others."""

import asyncio
import socket

import dns.message
import dns.rcode
import pytest

from netplane.dns import upstream
from netplane.dns.server import NameServers
from netplane.dns.zone import EMPTY, Zone

_ZONES = {
    "one": Zone({b"web": (bytes([10, 0, 0, 1]),), b"idle": ()}, {"10.0.0.1": "web.one"}),
    "two": Zone({b"web": (bytes([10, 0, 1, 1]),)}, {}),
}


def ask(data: bytes, *networks: str) -> dns.message.Message | None:
    answer = NameServers(lambda network: _ZONES.get(network, EMPTY)).answer(data, networks)
    return dns.message.from_wire(answer) if answer is not None else None


def addresses(message: dns.message.Message | None) -> list[str]:
    assert message is not None
    return [str(item) for rrset in message.answer for item in rrset]


def test_the_first_network_that_knows_the_name_answers() -> None:
    query = dns.message.make_query("WEB.", "A").to_wire()
    assert addresses(ask(query, "one", "two")) == ["10.0.0.1"]
    assert addresses(ask(query, "two", "one")) == ["10.0.1.1"]
    assert ask(query) is None


def test_known_names_have_no_other_records() -> None:
    for name, kind in (("web", "AAAA"), ("web", "MX"), ("idle", "A")):
        message = ask(dns.message.make_query(name, kind).to_wire(), "one")
        assert message is not None
        assert message.rcode() == dns.rcode.NOERROR
        assert addresses(message) == []


def test_what_is_no_question_is_refused() -> None:
    update = dns.message.make_query("web", "A")
    update.set_opcode(dns.opcode.NOTIFY)
    refused = ask(update.to_wire(), "one")
    assert refused is not None
    assert refused.rcode() == dns.rcode.NOTIMP
    server = NameServers(lambda network: EMPTY)
    assert server.answer(b"\0\1\1\0\0\1\0\0\0\0\0\0\xff", ()) != b""
    assert server.answer(b"x", ()) == b""
    response = dns.message.make_response(dns.message.make_query("web", "A")).to_wire()
    assert server.answer(response, ()) == b""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """An upstream server's socket on loopback, and little patience."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.1", 0))
    monkeypatch.setattr(upstream, "PORT", sock.getsockname()[1])
    monkeypatch.setattr(upstream, "TIMEOUT", 0.2)
    return sock


async def test_a_forged_answer_is_not_believed(quick: socket.socket) -> None:
    query = dns.message.make_query("example.com", "A").to_wire()
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        data, client = await loop.sock_recvfrom(quick, 512)
        forged = bytes([data[0] ^ 1, data[1]]) + data[2:]
        for answer in (forged, data[:2] + b"\x81\x80" + data[4:]):
            await loop.sock_sendto(quick, answer, client)

    serving = asyncio.create_task(serve())
    with quick:
        answer = await upstream.ask(query, len(query), ["127.0.0.1"], upstream.host_socket, tcp=False)
        await serving
    assert answer is not None
    assert answer[:4] == query[:2] + b"\x81\x80"


async def test_silence_is_no_answer(quick: socket.socket) -> None:
    query = dns.message.make_query("example.com", "A").to_wire()
    with quick:
        assert await upstream.ask(query, len(query), ["127.0.0.1"], upstream.host_socket, tcp=False) is None
