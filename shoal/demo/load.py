"""Constant requests to a published port, from wherever this is started: `python -m shoal.demo.load URL …`.

Each URL gets a few steady streams of new connections. Ends when standard input does (or after --seconds),
and prints what happened as one JSON object: for each URL the number of answers, the failures by their cause
with the time of each, and who answered.
"""

import argparse
import http.client
import json
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 2.0


class Stream:
    """Requests to one URL, at a steady rate."""

    def __init__(self, url: str, rate: float, keep_alive: bool) -> None:
        parts = urlsplit(url)
        self.url = url
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path or "/"
        self._interval = 1 / rate
        self._keep_alive = keep_alive
        self.answers: Counter[str] = Counter()
        self.failures: list[tuple[float, str]] = []
        self.slowest = 0.0
        self.stop = threading.Event()

    def run(self) -> None:
        """Send until told to stop."""
        connection: http.client.HTTPConnection | None = None
        due = time.monotonic()
        while not self.stop.is_set():
            begun = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
                connection.request("GET", self._path, headers={"Host": "web"})
                response = connection.getresponse()
                body = response.read().decode(errors="replace")
                if response.status != 200:
                    raise http.client.HTTPException(f"status {response.status}")
                self.answers[body.split(" ")[0].strip()] += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((time.time(), f"{type(error).__name__}: {error}"))
                if connection is not None:
                    connection.close()
                connection = None
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if connection is not None and not self._keep_alive:
                connection.close()
                connection = None
            due = max(due + self._interval, time.monotonic() - 1)
            self.stop.wait(max(0.0, due - time.monotonic()))


def result(streams: Sequence[Stream]) -> dict[str, Any]:
    """What happened to one URL."""
    return {
        "answers": sum(sum(stream.answers.values()) for stream in streams),
        "failures": sorted(failure for stream in streams for failure in stream.failures),
        "tasks": sum((stream.answers for stream in streams), Counter()),
        "slowest_ms": round(max(stream.slowest for stream in streams) * 1000, 1),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second to each URL")
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until standard input ends")
    parser.add_argument("--streams", type=int, default=4, help="parallel streams to each URL")
    parser.add_argument("--keep-alive", action="store_true")
    options = parser.parse_args()
    streams = [
        Stream(url, options.rate / options.streams, options.keep_alive)
        for url in options.urls
        for _ in range(options.streams)
    ]
    threads = [threading.Thread(target=stream.run, daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    if options.seconds:
        time.sleep(options.seconds)
    else:
        while select.select([sys.stdin], [], [])[0] and sys.stdin.read(1):
            pass
    for stream in streams:
        stream.stop.set()
    for thread in threads:
        thread.join(TIMEOUT + 1)
    print(json.dumps({url: result([s for s in streams if s.url == url]) for url in options.urls}))


if __name__ == "__main__":
    main()
