"""The name server's answers, and what it asks of others."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from netplane.dns import connection, upstream
from netplane.dns.server import NameServers, Sight
from netplane.dns.zone import EMPTY, Zone


class Zones:
    """Zones by hand."""

    def __init__(self, **zones: Zone) -> None:
        self.zones = zones
        self.generation = 0

    def zone(self, network_id: str) -> Zone:
        return self.zones.get(network_id, EMPTY)


_SIX = bytes.fromhex("fd00" + 13 * "00" + "01")
_ZONES = Zones(
    one=Zone(
        {b"web": (bytes([10, 0, 0, 1]),), b"idle": (), b"web.one": (bytes([10, 0, 0, 1]),)},
        {"10.0.0.1": "web.one", "fd00::1": "web.one"},
        services={b"_80._tcp.web": ((80, "Web.one"),)},
    ),
    two=Zone({b"web": (bytes([10, 0, 1, 1]),)}, {}, {b"web": (_SIX,)}),
)


def ask(data: bytes, *networks: str) -> dns.message.Message | None:
    answer = NameServers(_ZONES).answer(data, networks)
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
    server = NameServers(Zones())
    assert server.answer(b"\0\1\1\0\0\1\0\0\0\0\0\0\xff", ()) != b""
    assert server.answer(b"x", ()) == b""
    response = dns.message.make_response(dns.message.make_query("web", "A")).to_wire()
    assert server.answer(response, ()) == b""


def test_service_records() -> None:
    message = ask(dns.message.make_query("_80._TCP.web", "SRV").to_wire(), "two", "one")
    assert message is not None
    assert [str(item) for rrset in message.answer for item in rrset] == ["0 0 80 Web.one."]
    assert [str(item) for rrset in message.additional for item in rrset] == ["10.0.0.1"]
    assert addresses(ask(dns.message.make_query("_80._tcp.web", "A").to_wire(), "one")) == []
    assert ask(dns.message.make_query("_81._tcp.web", "SRV").to_wire(), "one") is None


def test_pointers() -> None:
    for name in ("1.0.0.10.in-addr.arpa", ".".join(_SIX.hex()[::-1]) + ".ip6.arpa"):
        assert addresses(ask(dns.message.make_query(name, "PTR").to_wire(), "two", "one")) == ["web.one."]
        assert addresses(ask(dns.message.make_query(name, "TXT").to_wire(), "one")) == []


def test_another_network_may_have_ipv6() -> None:
    assert addresses(ask(dns.message.make_query("web", "AAAA").to_wire(), "one", "two")) == ["fd00::1"]


async def asked(data: bytes) -> bytes | None:
    return await upstream.Upstreams(["127.0.0.1"]).ask(data, len(data), upstream.host_socket, tcp=False)


class Served:
    """A name server on loopback, with a client."""

    def __init__(self, zones: Zones) -> None:
        self.zones = zones
        self.server = NameServers(zones)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        udp.bind(("127.0.0.1", 0))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        self.tcp_address = tcp.getsockname()
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.client.connect(udp.getsockname())
        self.server.open("box", udp, tcp, Sight(("one",), (), upstream.host_socket))

    async def addresses(self, name: str) -> list[str]:
        loop = asyncio.get_running_loop()
        query = dns.message.make_query(name, "A")
        await loop.sock_sendall(self.client, query.to_wire())
        async with asyncio.timeout(5):
            answer = dns.message.from_wire(await loop.sock_recv(self.client, 4096))
        assert answer.id == query.id
        return addresses(answer)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served(Zones(one=Zone({b"web": tuple(bytes([10, 0, 0, n]) for n in (1, 2, 3))}, {})))
    with served.client:
        yield served
        await served.server.close_all()


async def test_addresses_take_turns_and_no_answer_outlives_its_zone(served: Served) -> None:
    firsts = [(await served.addresses("web"))[0] for _ in range(6)]
    assert sorted(firsts[:3]) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert firsts[3:] == firsts[:3]
    served.zones.zones["one"] = Zone({b"web": (bytes([10, 0, 0, 9]),)}, {})
    served.zones.generation += 1
    assert await served.addresses("web") == ["10.0.0.9"]
    served.server.reopen("box", Sight(("nowhere",), (), upstream.host_socket))
    assert await served.addresses("web") == []


async def test_queries_over_one_connection_need_not_wait(served: Served) -> None:
    reader, writer = await asyncio.open_connection(*served.tcp_address)
    queries = [dns.message.make_query("web" if n % 2 else "other", "A", id=n) for n in range(100)]
    stream = b"".join(struct.pack(">H", len(q.to_wire())) + q.to_wire() for q in queries)
    for start in range(0, len(stream), 17):  # in pieces that mean nothing
        writer.write(stream[start : start + 17])
    writer.write_eof()
    waiting = {query.id: query for query in queries}
    async with asyncio.timeout(10):
        while waiting:
            length = int.from_bytes(await reader.readexactly(2))
            answer = dns.message.from_wire(await reader.readexactly(length))
            query = waiting.pop(answer.id)
            wanted = dns.rcode.NOERROR if "web" in str(query.question[0].name) else dns.rcode.SERVFAIL
            assert answer.rcode() == wanted
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_silent_connection_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE", 0.01)
    reader, writer = await asyncio.open_connection(*served.tcp_address)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """An upstream server's socket on loopback, and little patience."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.1", 0))
    monkeypatch.setattr(upstream, "PORT", sock.getsockname()[1])
    monkeypatch.setattr(upstream, "TIMEOUT", 0.2)
    yield sock
    sock.close()


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
        answer = await asked(query)
        await serving
    assert answer is not None
    assert answer[:4] == query[:2] + b"\x81\x80"


async def test_silence_is_no_answer(quick: socket.socket) -> None:
    query = dns.message.make_query("example.com", "A").to_wire()
    with quick:
        assert await asked(query) is None


async def test_an_answer_is_kept_as_long_as_it_says(quick: socket.socket) -> None:
    query = dns.message.make_query("Example.com", "A")
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text("example.com.", 60, "IN", "A", "192.0.2.1"))
    servers = upstream.Upstreams(["127.0.0.1"])
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        data, client = await loop.sock_recvfrom(quick, 512)
        await loop.sock_sendto(quick, data[:2] + response.to_wire()[2:], client)

    with quick:
        serving = asyncio.create_task(serve())
        for name in ("Example.com", "eXAMPLE.com", "example.com"):  # only the first reaches the server
            data = dns.message.make_query(name, "A").to_wire()
            answer = await servers.ask(data, len(data), upstream.host_socket, tcp=False)
            assert answer is not None
            assert answer[: len(data)][12:] == data[12:]
            assert addresses(dns.message.from_wire(answer)) == ["192.0.2.1"]
        await serving


async def test_a_server_that_refuses_or_is_silent_leaves_it_to_the_next(quick: socket.socket) -> None:
    data = dns.message.make_query("example.com", "A").to_wire()
    loop = asyncio.get_running_loop()
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.3", quick.getsockname()[1]))
    refusing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    refusing.bind(("127.0.0.2", quick.getsockname()[1]))

    async def serve(sock: socket.socket, flags: bytes) -> None:
        query, client = await loop.sock_recvfrom(sock, 512)
        await loop.sock_sendto(sock, query[:2] + flags + query[4:], client)

    servers = upstream.Upstreams(["127.0.0.3", "127.0.0.2", "127.0.0.1"])
    with quick, silent, refusing:
        serving = asyncio.gather(serve(refusing, b"\x81\x85"), serve(quick, b"\x81\x80"))
        answer = await servers.ask(data, len(data), upstream.host_socket, tcp=False)
        assert answer is not None
        assert answer[2:4] == b"\x81\x80"
        silent.setblocking(False)
        assert silent.recv(512)
        await serving
        serving = asyncio.gather(serve(refusing, b"\x81\x85"), serve(quick, b"\x81\x82"))
        answer = await servers.ask(data, len(data), upstream.host_socket, tcp=False)
        assert answer is not None
        await serving
        assert answer[3] & 15 in (dns.rcode.SERVFAIL, dns.rcode.REFUSED)  # the refusals are all there is
