"""One port for Raft and HTTP."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

import manager.port as port_module
from manager.port import ClusterPort, client_hello_protocols
from manager.raft import ALPN
from manager.sources import REMEMBERED, Sources


class Routed:
    """Where connections went."""

    def __init__(self) -> None:
        self.raft: list[socket.socket] = []
        self.http: list[socket.socket] = []

    async def wait(self, raft: int = 0, http: int = 0) -> None:
        async with asyncio.timeout(5):
            while len(self.raft) < raft or len(self.http) < http:
                await asyncio.sleep(0.005)

    def close(self) -> None:
        for sock in self.raft + self.http:
            sock.close()


@pytest.fixture
async def routed() -> AsyncIterator[tuple[Routed, ClusterPort]]:
    where = Routed()
    port = ClusterPort("127.0.0.1", 0, where.raft.append, where.http.append)
    await port.start()
    yield where, port
    await port.stop()
    where.close()


def hello(*protocols: str) -> bytes:
    """A real ClientHello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="manager").do_handshake()
    return outgoing.read()


def test_protocols_in_a_client_hello() -> None:
    assert client_hello_protocols(hello("h2", ALPN)) == ["h2", ALPN]
    assert client_hello_protocols(hello()) == []
    assert client_hello_protocols(b"GET / HTTP/1.1\r\n") == []


def test_every_cut_of_a_client_hello_asks_for_more() -> None:
    whole = hello(ALPN)
    assert all(client_hello_protocols(whole[:size]) is None for size in range(1, len(whole)))


def test_damaged_client_hello_is_no_raft() -> None:
    whole = bytearray(hello(ALPN))
    for position in range(5, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        client_hello_protocols(bytes(damaged))  # Must not raise.


async def test_routes_by_alpn_and_leaves_the_bytes_unread(routed: tuple[Routed, ClusterPort]) -> None:
    where, port = routed
    sent = {"raft": hello(ALPN), "http": hello("http/1.1")}
    writers = []
    for data in (*sent.values(), b"GET / HTTP/1.1\r\n\r\n"):
        _, writer = await asyncio.open_connection(*port.address)
        writer.write(data)
        writers.append(writer)
    await where.wait(raft=1, http=2)
    assert where.raft[0].recv(65536) == sent["raft"]
    for writer in writers:
        writer.close()


async def test_slow_hello_byte_by_byte_holds_up_nobody(routed: tuple[Routed, ClusterPort]) -> None:
    where, port = routed
    data = hello(ALPN)
    _, silent = await asyncio.open_connection(*port.address)
    _, slow = await asyncio.open_connection(*port.address)
    slow.write(data[:10])
    await slow.drain()
    _, quick = await asyncio.open_connection(*port.address)
    quick.write(data)
    await where.wait(raft=1)
    for byte in data[10:]:
        slow.write(bytes([byte]))
        await slow.drain()
    await where.wait(raft=2)
    for writer in (silent, slow, quick):
        writer.close()


async def test_silent_connection_is_closed(
    routed: tuple[Routed, ClusterPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.port.HELLO_TIMEOUT", 0.1)
    reader, writer = await asyncio.open_connection(*routed[1].address)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_survives_a_lack_of_descriptors(
    routed: tuple[Routed, ClusterPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock pysyncobj closes its listener for good."""
    where, port = routed
    accept, failures = socket.socket.accept, [errno.EMFILE, errno.ENFILE, errno.ECONNABORTED]

    def scarce(listener: socket.socket):
        if failures:
            raise OSError(failures.pop(), "injected")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", scarce)
    writers = []
    for _ in range(2):
        _, writer = await asyncio.open_connection(*port.address)
        writer.write(hello(ALPN))
        writers.append(writer)
    await where.wait(raft=2)
    assert not failures
    for writer in writers:
        writer.close()


async def test_stop_closes_what_waits() -> None:
    where = Routed()
    port = ClusterPort("127.0.0.1", 0, where.raft.append, where.http.append)
    await port.start()
    reader, writer = await asyncio.open_connection(*port.address)
    await asyncio.sleep(0.02)
    await port.stop()
    assert await reader.read() == b""
    with pytest.raises(OSError):
        await asyncio.open_connection(*port.address)
    writer.close()


def test_one_address_can_not_have_all_handshakes_for_itself() -> None:
    sources = Sources(rate=10, burst=20)
    assert [sources.admit("192.0.2.1", 5.0) for _ in range(30)] == 20 * [True] + 10 * [False]
    assert sources.admit("192.0.2.2", 5.0)
    assert [sources.admit("192.0.2.1", 6.0) for _ in range(12)] == 10 * [True] + 2 * [False]
    assert [sources.admit("192.0.2.1", 99.0) for _ in range(21)] == 20 * [True] + [False]
    assert all(sources.admit(address, 5.0) for address in 40 * ["127.0.0.1", "::1", "fe80::1%eth0", "?"][:2])


def test_the_addresses_that_are_remembered_are_bounded() -> None:
    sources = Sources(rate=1, burst=1)
    for number in range(3 * REMEMBERED):
        sources.admit(f"2001:db8::{number:x}", 0.0)
    assert len(sources._buckets) == REMEMBERED
    assert not sources.admit(f"2001:db8::{3 * REMEMBERED - 1:x}", 0.0)


async def test_silent_connections_displace_each_other_not_those_who_speak(
    routed: tuple[Routed, ClusterPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_module, "MAX_WAITING", 10)
    where, port = routed
    writers = [(await asyncio.open_connection(*port.address))[1] for _ in range(40)]
    _, writer = await asyncio.open_connection(*port.address)
    writer.write(hello(ALPN))
    await where.wait(raft=1)
    assert len(port._waiting) <= 10
    for each in (*writers, writer):
        each.close()
