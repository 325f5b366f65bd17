"""How long a commit takes against what it can't do without, and how many there are beside etcd's."""

import asyncio
import json
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import etcd
from bench.cluster import SHOAL, Options, leader, playground
from bench.members import MemberProcess, members
from bench.raw_cost import round_trip_seconds, sync_seconds
from bench.report import Bar, percentile
from cluster.errors import Unavailable

GOAL = 3.0
PAYLOAD = 200
FRAME = 460
"""Bytes that such a commit adds to a log."""
MANAGERS = 3
CLIENTS = (1, 64)
SECONDS = 8.0
ROUNDS = 3

Sample = tuple[list[float], float]
"""Latencies, and how long it took in all, in seconds."""


@dataclass
class Engine:
    """What one way of writing showed: samples by the number of clients."""

    name: str
    samples: dict[int, list[Sample]] = field(default_factory=dict)

    def add(self, clients: int, sample: Sample) -> None:
        """One more round."""
        self.samples.setdefault(clients, []).append(sample)

    def latency(self, clients: int, share: float) -> float:
        """The median of the rounds' percentiles, in ms."""
        return 1000 * statistics.median(percentile(found, share) for found, _ in self.samples[clients])

    def rate(self, clients: int) -> float:
        """The median of the rounds' operations per second."""
        return statistics.median(len(found) / taken for found, taken in self.samples[clients])

    def row(self) -> tuple[str, ...]:
        """For the table."""
        cells = [self.name]
        for clients in CLIENTS:
            cells += [f"{self.latency(clients, share):.2f}" for share in (0.5, 0.99)]
            cells.append(f"{self.rate(clients):,.0f}")
        return tuple(cells)


def _store(member: MemberProcess, clients: int, seconds: float) -> Sample:
    answer = member.ask("write", clients=clients, seconds=seconds, size=PAYLOAD)
    return answer["latencies"], answer["seconds"]


async def _through_api(socket_path: str, clients: int, seconds: float) -> Sample:
    """Create configs over the Engine API, each client on a connection of its own."""
    latencies: list[float] = []
    begun = time.monotonic()

    async def one_client(number: int) -> None:
        reader, writer = await asyncio.open_unix_connection(socket_path)
        try:
            count = 0
            while time.monotonic() - begun < seconds:
                count += 1
                name = f"bench-{begun:.3f}-{number}-{count}".replace(".", "-")
                body = json.dumps({"Name": name, "Data": "A" * PAYLOAD}).encode()
                head = "POST /configs/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
                before = time.perf_counter()
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                content = await reader.readexactly(length)
                if b" 201 " not in answer.split(b"\r\n")[0]:
                    raise Unavailable(f"a config was refused: {content.decode()}")
                latencies.append(time.perf_counter() - before)
        finally:
            writer.close()

    await asyncio.gather(*(one_client(number) for number in range(clients)))
    return latencies, time.monotonic() - begun


def _api(seconds: float) -> Engine:
    found = Engine("Shoal, through the Engine API of the leader's host")
    with playground(SHOAL, MANAGERS, MANAGERS) as place:
        path = place.host(leader(place.engine("host1"))).docker_host.removeprefix("unix://")
        for clients in CLIENTS:
            found.add(clients, asyncio.run(_through_api(path, clients, seconds)))
    return found


def run(options: Options) -> Bar:
    """Measure."""
    seconds = 2.0 if options.quick else SECONDS
    ours, syncs, trips, plain_trips = Engine("Shoal, the store's update"), [], [], []
    peer: Engine | None = None
    missing = ""
    with ExitStack() as stack:
        cluster = stack.enter_context(members(MANAGERS))
        try:
            other = stack.enter_context(etcd.cluster())
            peer = Engine(f"etcd {other.version}")
        except Unavailable as error:
            missing = str(error)
        for _ in range(options.rounds(ROUNDS)):
            syncs.append(sync_seconds(FRAME, cluster.directory))
            trips.append(round_trip_seconds(FRAME, encrypted=True))
            plain_trips.append(round_trip_seconds(FRAME, encrypted=False))
            for clients in CLIENTS:
                ours.add(clients, _store(cluster.leader(), clients, seconds))
                if peer is not None:
                    peer.add(clients, asyncio.run(etcd.write(other, clients, seconds, PAYLOAD)))
    api = _api(seconds)
    sync, trip = (1000 * statistics.median(found) for found in (syncs, trips))
    raw = 2 * sync + trip
    header = ["ms and operations a second"]
    for clients in CLIENTS:
        who = "1 client" if clients == 1 else f"{clients} clients"
        header += [f"{who}: p50", "p99", "op/s"]
    bar = Bar(
        "8. Commit latency and rate",
        f"p50 at 1 client, with every log synced, is at most {GOAL:.0f} times the raw cost (a sync on each "
        f"of two disks and a round trip); the rate at {CLIENTS[1]} clients stated beside etcd's",
        tuple(header),
    )
    p50 = ours.latency(1, 0.5)
    bar.check(p50 <= GOAL * raw, f"p50 {p50:.2f} ms: {p50 / raw:.1f} times the raw cost of {raw:.2f} ms")
    if peer is not None:
        bar.check(
            True,
            f"{ours.rate(64):,.0f} commits a second at 64 clients; {peer.name}: {peer.rate(64):,.0f}",
        )
    bar.rows += [engine.row() for engine in (ours, *([peer] if peer else []), api)]
    bar.notes.append(
        f"Raw: appending {FRAME} bytes to a file and fdatasync {sync:.3f} ms, a round trip with TLS 1.3 over "
        f"loopback between two processes {trip:.3f} ms (without TLS "
        f"{1000 * statistics.median(plain_trips):.3f} ms), each alone on the machine, in the same rounds."
    )
    bar.notes.append(
        f"{MANAGERS} processes on this machine and one disk, {PAYLOAD} bytes of data in each write, each "
        "client rewrites its own object. Shoal's clients are tasks in the leader's process, and its members "
        f"speak mutual TLS; etcd's are gRPC streams over {etcd.CONNECTIONS} connections from one Python "
        f"process, and its members speak plain TCP. {options.rounds(ROUNDS)} rounds of {seconds:.0f} s each, "
        "in turn; the medians. Through the API: new configs over a unix socket, which shoald passes on to "
        "the manager." + (f" Without etcd: {missing}" if missing else "")
    )
    return bar
