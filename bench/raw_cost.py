"""What a commit can't do without: two disks' syncs and a round trip, with the same bytes and nothing else."""

import multiprocessing
import os
import socket
import ssl
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from manager.raft import TlsMaterial
from tests.fakes.raft import Authority

TIMES = 2000


def sync_seconds(size: int, directory: Path | None = None) -> float:
    """The median of appending that many bytes to a file and syncing it."""
    with tempfile.NamedTemporaryFile(prefix="shoal-bench-", dir=directory) as file:
        descriptor, data, taken = file.fileno(), os.urandom(size), []
        for _ in range(TIMES):
            begun = time.perf_counter()
            os.write(descriptor, data)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def round_trip_seconds(size: int, *, encrypted: bool) -> float:
    """The median of sending that many bytes to another process over loopback, and getting a few back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        authority = Authority()
        here, there = authority.issue("a"), authority.issue("b")
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        echo = multiprocessing.get_context("spawn").Process(
            target=_echo, args=(address, size, there if encrypted else None, theirs)
        )
        echo.start()
        stream, _ = listener.accept()
        if encrypted:
            stream = here.server_context().wrap_socket(stream, server_side=True)
        with stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data, taken = os.urandom(size), []
            for _ in range(TIMES):
                begun = time.perf_counter()
                stream.sendall(data)
                stream.recv(64)
                taken.append(time.perf_counter() - begun)
        ours.recv()
        echo.join()
    return statistics.median(taken)


def _echo(address: tuple[str, int], size: int, tls: TlsMaterial | None, done: Connection) -> None:
    stream = socket.create_connection(address)
    if tls is not None:
        context: ssl.SSLContext = tls.client_context()
        stream = context.wrap_socket(stream, server_hostname="b")
    with stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = 0
        while data := stream.recv(65536):
            received += len(data)
            while received >= size:
                received -= size
                stream.sendall(b"x" * 40)
    done.send(True)
