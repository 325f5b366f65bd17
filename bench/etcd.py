"""The peer for writes: Debian's etcd, three members on loopback, and a client that costs it little.

The packages are unpacked into a folder; nothing is installed. The client speaks gRPC by hand (HTTP/2 frames
of one request that never changes but for its stream), because a library in Python would be what is measured.
"""

import asyncio
import json
import shutil
import struct
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.members import free_port
from cluster.errors import Unavailable
from shoal.demo.packages import download, unpack

PACKAGES = ("etcd-server",)
CACHE = Path("/var/cache/shoal/packages")
MEMBERS = 3
CONNECTIONS = 8
START_SECONDS = 30.0

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 0x1
_END_HEADERS = 0x4
_WINDOW_BYTES = 1 << 30
_PATH = b"/etcdserverpb.KV/Put"
# HPACK (RFC 7541) without a table of its own: ":method POST", ":scheme http", then literals.
_REQUEST_HEADERS = b"".join(
    (
        b"\x83\x86",
        b"\x04" + bytes([len(_PATH)]) + _PATH,
        b"\x01\x09localhost",
        b"\x0f\x10\x10application/grpc",
        b"\x00\x02te\x08trailers",
    )
)


@dataclass(frozen=True)
class Etcd:
    """A running cluster; `leader` is where the leading member listens for clients."""

    version: str
    leader: tuple[str, int]


@contextmanager
def cluster() -> Iterator[Etcd]:
    """Three members on loopback, each syncing its log as etcd does. Raises Unavailable."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-bench-etcd-"))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        unpack(download(PACKAGES, CACHE), folder / "root")
        program = folder / "root/usr/bin/etcd"
        version = subprocess.check_output([program, "--version"], text=True).split()[2]
        peers = {f"e{number}": f"http://127.0.0.1:{free_port()}" for number in range(MEMBERS)}
        ports = [free_port() for _ in range(MEMBERS)]
        for (name, peer), port in zip(peers.items(), ports, strict=True):
            client = f"http://127.0.0.1:{port}"
            command = [program, "--name", name, "--data-dir", folder / name, "--logger", "zap"]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--initial-cluster", ",".join(f"{a}={b}" for a, b in peers.items())]
            command += ["--log-level", "error"]
            processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        yield Etcd(version, ("127.0.0.1", _leader(ports)))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        shutil.rmtree(folder)


def _leader(ports: list[int]) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for port in ports:
            url = f"http://127.0.0.1:{port}/v3/maintenance/status"
            try:
                with urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=1) as answer:
                    status = json.load(answer)
            except OSError:
                continue
            if status.get("leader", "0") == status["header"]["member_id"]:
                return port
        time.sleep(0.1)
    raise Unavailable(f"etcd has no leader after {START_SECONDS:.0f} s")


def put_request(key: bytes, value: bytes) -> bytes:
    """An etcdserverpb.PutRequest as a gRPC message."""
    body = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value
    return struct.pack(">BI", 0, len(body)) + body


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Connection(asyncio.Protocol):
    """One HTTP/2 connection; a put is a stream of its own."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._next_stream = 1
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._answered: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        window = _frame(_WINDOW, 0, 0, struct.pack(">I", _WINDOW_BYTES))
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + window)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection ended")

    def close(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.close()

    async def put(self, request: bytes) -> None:
        """Returns when etcd has answered that the put is done. Raises OSError."""
        assert self._transport is not None
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        answer = self._answers[stream] = asyncio.get_running_loop().create_future()
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, stream, _REQUEST_HEADERS)
            + _frame(_DATA, _END_STREAM, stream, request)
        )
        await answer

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        offset = 0
        while len(buffer) - offset >= 9:
            length = int.from_bytes(buffer[offset : offset + 3], "big")
            kind, flags, stream = struct.unpack_from(">BBI", buffer, offset + 3)
            end = offset + 9 + length
            if len(buffer) < end:
                break
            self._received(kind, flags, stream, bytes(buffer[offset + 9 : end]))
            offset = end
        del buffer[:offset]

    def _received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _DATA:
            self._answered.add(stream)
        elif kind == _HEADERS and flags & _END_STREAM:
            answer = self._answers.pop(stream)
            if stream in self._answered:  # only a put that is done has a body
                self._answered.discard(stream)
                answer.set_result(None)
            else:
                answer.set_exception(OSError(f"etcd refused a put: {payload!r}"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RESET, _GOAWAY):
            self._fail(f"etcd ended a stream: {payload!r}")

    def _fail(self, why: str) -> None:
        failed, self._answers = self._answers, {}
        for answer in failed.values():
            if not answer.done():
                answer.set_exception(OSError(why))


async def write(etcd: Etcd, clients: int, seconds: float, size: int) -> tuple[list[float], float]:
    """Put values of that size from so many clients, each with a key of its own; latencies, and the time."""
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(Connection, *etcd.leader))[1] for _ in range(min(clients, CONNECTIONS))
    ]
    latencies: list[float] = []
    begun = time.monotonic()

    async def one_client(number: int) -> None:
        connection = connections[number % len(connections)]
        request = put_request(b"bench-%d" % number, bytes(size))
        while time.monotonic() - begun < seconds:
            before = time.perf_counter()
            await connection.put(request)
            latencies.append(time.perf_counter() - before)

    await asyncio.gather(*(one_client(number) for number in range(clients)))
    taken = time.monotonic() - begun
    for connection in connections:
        connection.close()
    return latencies, taken
