"""/events: what happens to services, nodes, secrets, configs and networks, as a stream of JSON lines.

Any manager serves it from what it applies itself. The stream misses nothing of what the filters let pass, or
ends with an event that says so, and then breaks off, so that the docker command fails too.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from cluster.errors import InvalidArgument, Unavailable
from cluster.event_ring import EventsLost, Logged
from cluster.events import FILTERS, INDEX_HEADER, lost_line
from cluster.seams import SECOND
from manager.api.access import ACCESS, Access
from manager.api.event_log import EventLog
from manager.api.filters import Filters, parse_filters
from manager.api.request import unix_time

EVENT_LOG: web.AppKey[EventLog] = web.AppKey("event_log", EventLog)
_NAMED = FILTERS - {"event", "label", "scope", "type"}
_SCOPE = "swarm"


async def event_log(app: web.Application) -> AsyncIterator[None]:
    """Keep the log while the API is served. For `cleanup_ctx`."""
    access = app[ACCESS]
    log = EventLog(access.store, access.clock)
    app[EVENT_LOG] = log
    following = asyncio.create_task(log.run(), name="event log")
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def events(request: web.Request) -> web.StreamResponse:
    """GET /events."""
    access, log = request.app[ACCESS], request.app[EVENT_LOG]
    filters = parse_filters(request, FILTERS)
    since, until = unix_time(request, "since"), unix_time(request, "until")
    if since and until and since > until:
        raise InvalidArgument("`since` time cannot be after `until` time")
    ended = 0 < until <= access.clock.now()
    if ended:
        await _known(access, log)
    position = log.position_at(since) if since else log.end
    headers = {"Content-Type": "application/json", INDEX_HEADER: str(log.index_before(position))}
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    if since and since < log.complete_from:
        why = f"events before {log.complete_from / SECOND:.3f} are not all kept by this manager"
        await response.write(lost_line(access.node_id, why, _SCOPE, log.complete_from))
    left = max(until - access.clock.now(), 0) / SECOND if until else None

    async def tell(follow: bool) -> None:
        nonlocal position
        async for event in log.read(position, follow):
            position += 1
            if (not until or event.at <= until) and _passes(filters, event):
                await response.write(event.line)

    try:
        if not ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await tell(follow=True)
            await _known(access, log)
        await tell(follow=False)
    except (EventsLost, Unavailable) as error:
        await response.write(lost_line(access.node_id, str(error), _SCOPE, access.clock.now()))
        if request.transport is not None:
            request.transport.close()  # without the end mark: no client takes it for a whole stream
    return response


async def _known(access: Access, log: EventLog) -> None:
    """Have every event that has happened by now in the log. Raises Unavailable, EventsLost."""
    await access.confirmed()
    log.catch_up()


def _passes(filters: Filters, event: Logged) -> bool:
    """Docker's filters. One that names an object of another kind lets nothing of this kind pass."""
    return (
        filters.exact("type", event.kind)
        and filters.exact("event", event.action)
        and filters.exact("scope", _SCOPE)
        and filters.exact_labels(event.labels)
        and all(
            kind == event.kind and filters.prefix(kind, event.id, event.name)
            for kind in _NAMED
            if kind in filters
        )
    )
