"""Container logs for a reader at the managers, gathered over the agents' sessions."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from cluster.errors import Unavailable
from cluster.messages import LogCancel, LogChunk, LogEnd, LogRequest
from manager.dispatcher.session import Session

log = logging.getLogger("shoal.dispatcher.logs")

INCOMPLETE = "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "
"""SwarmKit's words."""
MAX_BUFFERED = 8 << 20
"""Bytes that wait for a slow reader; beyond, its stream ends with an error rather than stall the agents."""

_CHUNK = 256  # what a piece takes besides its data


@dataclass
class _Stream:
    """One reader. `open` maps session ids to the node's name; `failures` name nodes that gave no logs."""

    open: dict[str, str]
    failures: list[str]
    queue: asyncio.Queue[LogChunk | None] = field(default_factory=asyncio.Queue)
    buffered: int = 0

    def end(self, session_id: str, failure: str = "") -> None:
        """Nothing more comes from this session."""
        if self.open.pop(session_id, None) is None:
            return
        if failure:
            self.failures.append(failure)
        if not self.open:
            self.queue.put_nowait(None)


class LogBroker:
    """Asks agents for logs and hands their pieces to the readers."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._streams: dict[int, _Stream] = {}

    async def read(
        self,
        query: LogRequest,
        nodes: Mapping[str, tuple[str, Sequence[str]]],
        session_of: Callable[[str], Session | None],
    ) -> AsyncIterator[LogChunk]:
        """Pieces as they come. `nodes`: node id → (its name, the ids of the tasks there); `query` says the
        rest.

        Raises Unavailable, after all that there is, when some nodes could not be asked or fell silent: it
        names them.
        """
        number = next(self._numbers)
        asked: list[Session] = []
        stream = _Stream({}, [])
        self._streams[number] = stream
        for node_id, (name, task_ids) in nodes.items():
            session = session_of(node_id)
            if session is None:
                stream.failures.append(f"node {name} is not connected")
                continue
            stream.open[session.id] = name
            asked.append(session)
            session.send(replace(query, request=number, task_ids=tuple(task_ids)))
        try:
            while stream.open or not stream.queue.empty():
                chunk = await stream.queue.get()
                if chunk is None:
                    break
                stream.buffered -= len(chunk.data) + _CHUNK
                yield chunk
        finally:
            del self._streams[number]
            for session in asked:
                if session.id in stream.open:
                    session.send(LogCancel(request=number))
        if stream.failures:
            raise Unavailable(INCOMPLETE + "; ".join(stream.failures))

    def chunk(self, session: Session, chunk: LogChunk) -> None:
        """A piece from an agent."""
        stream = self._streams.get(chunk.request)
        if stream is None or session.id not in stream.open:
            return
        stream.buffered += len(chunk.data) + _CHUNK
        if stream.buffered > MAX_BUFFERED:
            session.send(LogCancel(request=chunk.request))
            stream.end(session.id, f"the reader is too slow for node {stream.open[session.id]}")
            return
        stream.queue.put_nowait(chunk)

    def ended(self, session: Session, end: LogEnd) -> None:
        """An agent has sent all that it has."""
        stream = self._streams.get(end.request)
        if stream is not None:
            name = stream.open.get(session.id, "")
            stream.end(session.id, f"node {name}: {end.error}" if end.error else "")

    def closed(self, session: Session) -> None:
        """A session is gone, and with it what it was asked for."""
        for stream in list(self._streams.values()):
            name = stream.open.get(session.id, "")
            stream.end(session.id, f"the connection to node {name} was lost")
