"""Connections that stay open through published ports, each with a request now and then: `python -m
bench.held_connections COUNT URL …`. Ends with standard input; prints when what happened to which.

A connection that its server closes between two requests is opened again and counts as closed, as a stopping
web server may do that; one that is reset, or whose answer does not come, counts by that name.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

PAUSE = 0.25
TIMEOUT = 3.0


class Held:
    """One connection."""

    def __init__(self, url: str, events: list[tuple[float, str]]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._events = events
        self.answers = 0

    async def hold(self, over: "asyncio.Task[str]") -> None:
        """Keep one open until the end."""
        while not over.done():
            try:
                async with asyncio.timeout(TIMEOUT):
                    reader, writer = await asyncio.open_connection(self._host, self._port)
            except (OSError, TimeoutError) as error:
                self._events.append((time.time(), f"not opened ({type(error).__name__})"))
                await asyncio.sleep(PAUSE)
                continue
            try:
                while not over.done():
                    await self._ask(reader, writer)
                    await asyncio.sleep(PAUSE)
                    if reader.at_eof():
                        raise EOFError("closed")
            except EOFError as error:
                self._events.append((time.time(), str(error)))
            except ConnectionResetError:
                self._events.append((time.time(), "reset"))
            except (OSError, TimeoutError) as error:
                self._events.append((time.time(), f"no answer ({type(error).__name__})"))
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(TIMEOUT):
            writer.write(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
            except asyncio.IncompleteReadError as error:
                raise EOFError("closed" if not error.partial else "closed within an answer") from error
        self.answers += 1
        if b"\r\nconnection: close\r\n" in head:
            raise EOFError("closed")


async def run(count: int, urls: list[str]) -> dict[str, object]:
    """Hold `count` connections to each."""
    events: list[tuple[float, str]] = []
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    connections = [Held(url, events) for url in urls for _ in range(count)]
    await asyncio.gather(*(each.hold(over) for each in connections))
    return {"answers": sum(each.answers for each in connections), "events": events}


def main() -> None:
    """The command."""
    print("started", flush=True)
    print(json.dumps(asyncio.run(run(int(sys.argv[1]), sys.argv[2:]))))


if __name__ == "__main__":
    main()
