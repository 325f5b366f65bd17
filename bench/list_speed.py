"""Lists of a cluster with 1,000 tasks, requests a second, against dockerd: same client, same machine."""

import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

from bench.cluster import SHOAL, Json, Options, create, playground, sleepers, until
from bench.peer import Daemon
from bench.report import Bar
from shoal.cli.client import Engine

SERVICES, REPLICAS = 20, 50
SECONDS = 4.0
ROUNDS = 3
CONNECTIONS = (1, 8)
LISTS = ("/services?status=true", "/tasks")
WRITES_A_SECOND = 20
NOWHERE = "node.labels.bench==nowhere"
"""The tasks wait for a place: what is measured is the list, not a thousand containers."""


class Connection:
    """HTTP over a unix socket with as little of a client as there can be."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))

    def get(self, path: str) -> int:
        """Ask and read the whole answer: its size in bytes. Raises OSError."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
        data = self._read()
        while b"\r\n\r\n" not in data:
            data += self._read()
        head, _, rest = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(head[:200].decode(errors="replace"))
        size, last = len(rest), rest[-5:]
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
        while size < int(length) if length else last != b"0\r\n\r\n":
            part = self._read()
            size, last = size + len(part), (last + part)[-5:]
        return size

    def _read(self) -> bytes:
        part = self._socket.recv(1 << 18)
        if not part:
            raise OSError("the engine closed the connection")
        return part

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def rate(path: Path, question: str, connections: int, duration: float) -> float:
    """Answers a second over so many connections at once."""
    end = time.monotonic() + duration

    def ask(_: int) -> int:
        connection, count = Connection(path), 0
        try:
            while time.monotonic() < end:
                connection.get(question)
                count += 1
        finally:
            connection.close()
        return count

    begun = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        answers = sum(pool.map(ask, range(connections)))
    return answers / (time.monotonic() - begun)


class Contender:
    """One engine with 1,000 tasks, and its rates."""

    def __init__(self, daemon: Daemon, engine: Engine, path: Path) -> None:
        self.name = daemon.name
        self._engine = engine
        self._path = path
        self.rates: dict[tuple[str, str], list[float]] = {}
        self.services = [
            create(engine, sleepers(f"list-{number}", REPLICAS, constraints=(NOWHERE,)))
            for number in range(SERVICES)
        ]
        until("all tasks are there", lambda: len(engine.get("/tasks")) == SERVICES * REPLICAS)
        self.sizes = {question: self._size(question) for question in LISTS}

    def _size(self, question: str) -> int:
        connection = Connection(self._path)
        try:
            return connection.get(question)
        finally:
            connection.close()

    def round(self, duration: float) -> None:
        """Measure all once: nothing changes, and then while services are updated."""
        for question in LISTS:
            for connections in CONNECTIONS:
                found = rate(self._path, question, connections, duration)
                self.rates.setdefault((question, str(connections)), []).append(found)
            with _Writer(self._relabel):
                found = rate(self._path, question, 1, duration)
            self.rates.setdefault((question, "writes"), []).append(found)

    def _relabel(self, number: int) -> None:
        service: Json = self._engine.get(f"/services/{self.services[number % SERVICES]}")
        spec = {**service["Spec"], "Labels": {"number": str(number)}}
        index = service["Version"]["Index"]
        self._engine.post(f"/services/{service['ID']}/update", spec, version=index)

    def median(self, question: str, how: str) -> float:
        """Of the rounds."""
        return statistics.median(self.rates[question, how])


class _Writer:
    """Does something some times a second, meanwhile."""

    def __init__(self, write: Callable[[int], None]) -> None:
        self._write = write
        self._stop = Event()
        self._thread = Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(1 / WRITES_A_SECOND):
            self._write(number)
            number += 1

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def run(options: Options) -> Bar:
    """Measure."""
    columns = [(question, str(n)) for question in LISTS for n in CONNECTIONS]
    columns += [(question, "writes") for question in LISTS]
    bar = Bar(
        "Lists of 1,000 tasks",
        "`GET /services?status=true` and `GET /tasks` with 1,000 tasks: as many answers a second as dockerd",
        ("answers/s (median)", *(f"{question}, {how}" for question, how in columns), "bytes of /tasks"),
    )
    with ExitStack() as stack:
        contenders = []
        for daemon in [SHOAL, *([options.peer] if options.peer else [])]:
            place = stack.enter_context(playground(daemon, 1, 1))
            path = place.host("host1").socket
            contenders.append(Contender(daemon, place.engine("host1"), path))
        for _ in range(options.rounds(ROUNDS)):
            for contender in contenders:
                contender.round(0.5 if options.quick else SECONDS)
    for contender in contenders:
        cells = [f"{contender.median(*column):,.0f}" for column in columns]
        bar.rows.append((contender.name, *cells, f"{contender.sizes['/tasks']:,}"))
    ours, *peers = contenders
    for column in columns:
        question, how = column
        mine = ours.median(*column)
        what = f"{question}, {'20 writes a second meanwhile' if how == 'writes' else f'{how} connections'}"
        if peers:
            theirs = peers[0].median(*column)
            bar.check(mine >= theirs, f"{what}: {mine:,.0f}/s against {theirs:,.0f}/s of {peers[0].name}")
        else:
            bar.notes.append(f"{what}: {mine:,.0f}/s; no dockerd could be had here to compare with.")
    if not peers:
        bar.check(False, "nothing to compare with: no dockerd could be had here")
    bar.notes.append(
        f"{SERVICES} services of {REPLICAS} replicas that wait for a place; one host; client: a socket and "
        f"a parser of HTTP's head in Python, the same for all; {options.rounds(ROUNDS)} rounds in turn."
    )
    return bar
