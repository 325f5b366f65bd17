"""Constant requests to published ports, from wherever this is started: `python -m shoal.demo.load URL …`.

An open loop: a new connection is due at a steady rate to each URL, however long earlier ones take, so that
a slow or failing port hides nothing. Ends when standard input does (or after --seconds) and prints one JSON
object: for each URL the number of answers, the failures with the time of each, who answered, and when
this program itself was late.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 2.0
LATE = 0.25
"""Seconds behind its plan from which on this program says so: then it lacks CPU itself, and what it calls
slow may have been in time."""


class BadAnswer(Exception):
    """The other end spoke, but not a 200."""


class Target:
    """One URL and what became of the requests to it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: web\r\n\r\n".encode()
        self._answers: Counter[str] = Counter()
        self._failures: list[tuple[float, str]] = []
        self._slowest = 0.0

    async def send(self) -> None:
        """One request on a connection of its own."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT):
                self._answers[await self._exchange()] += 1
        except (OSError, TimeoutError, BadAnswer) as error:
            self._failures.append((time.time(), f"{type(error).__name__}: {error}"))
        self._slowest = max(self._slowest, time.monotonic() - begun)

    async def _exchange(self) -> str:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(self._request)
            answer = await reader.read()
        finally:
            writer.close()
        head, _, body = answer.decode(errors="replace").partition("\r\n\r\n")
        if " 200 " not in head.partition("\r\n")[0]:
            raise BadAnswer(head[:60] or "closed without an answer")
        return body.split(" ")[0].strip()

    def result(self) -> dict[str, Any]:
        """What happened."""
        return {
            "answers": self._answers.total(),
            "failures": sorted(self._failures),
            "tasks": self._answers,
            "slowest_ms": round(self._slowest * 1000, 1),
        }


async def run(urls: list[str], rate: float, seconds: float) -> dict[str, Any]:
    """Load until the time is over or standard input ends; the results by URL."""
    targets = [Target(url) for url in urls]
    late: list[tuple[float, float]] = []
    over = asyncio.create_task(asyncio.sleep(seconds) if seconds else asyncio.to_thread(sys.stdin.read))
    begun, due = time.monotonic(), 0
    async with asyncio.TaskGroup() as requests:
        while not over.done():
            due += 1
            for target in targets:
                requests.create_task(target.send())
            await asyncio.sleep(max(0.0, begun + due / rate - time.monotonic()))
            behind = time.monotonic() - begun - due / rate
            if behind > LATE:
                late.append((time.time(), round(behind, 2)))
    return {target.url: target.result() | {"late": late} for target in targets}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second to each URL")
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until standard input ends")
    options = parser.parse_args()
    print("started", flush=True)
    print(json.dumps(asyncio.run(run(options.urls, options.rate, options.seconds))))


if __name__ == "__main__":
    main()
