"""This node's own events for one request: what the filters let pass, from `since` on. Docker's rules."""

from collections.abc import AsyncIterator, Callable, Mapping

from aiohttp import web

from cluster.event_ring import EventsLost, Logged
from cluster.events import FILTERS, lost_line
from cluster.seams import SECOND, Clock
from worker.api.http import filters, matches_labels
from worker.api.timestamps import parse_timestamp
from worker.events import SCOPE, EngineEvents

_NAMED = FILTERS - {"event", "image", "label", "scope", "type"}
_FUZZY = ("exec_create", "exec_start", "health_status")
"""Actions that go on after a colon, and are asked for without."""


async def local_events(
    events: EngineEvents, engine_id: str, clock: Clock, request: web.Request
) -> AsyncIterator[bytes]:
    """The lines; without an end unless `until` was given and has come. Raises EventsLost after its line."""
    passes = event_filter(filters(request, set(FILTERS)))
    since = parse_timestamp(request.query.get("since", ""))
    until = parse_timestamp(request.query.get("until", ""))
    position = events.position_at(since) if since else events.end
    if since and events.dropped and since < events.complete_from:
        why = f"events before {events.complete_from / SECOND:.3f} are not all kept by this node"
        yield lost_line(engine_id, why, SCOPE, events.complete_from)
    events.listeners += 1
    try:
        async for event in events.read(position, follow=not 0 < until <= clock.now()):
            if (not until or event.at <= until) and passes(event):
                yield event.line
    except EventsLost as error:
        yield lost_line(engine_id, str(error), SCOPE, clock.now())
        raise
    finally:
        events.listeners -= 1


def event_filter(wanted: Mapping[str, list[str]]) -> Callable[[Logged], bool]:
    """Whether an event passes. A filter that names an object lets only events of that kind pass, but `image`
    also those of its containers."""
    wanted = {key: values for key, values in wanted.items() if values}
    labels = wanted.get("label", [])

    def passes(event: Logged) -> bool:
        return (
            ("type" not in wanted or event.kind in wanted["type"])
            and ("scope" not in wanted or SCOPE in wanted["scope"])
            and ("event" not in wanted or any(_action(event.action, each) for each in wanted["event"]))
            and matches_labels(event.labels, labels)
            and ("image" not in wanted or _of_image(event, wanted["image"]))
            and all(event.kind == kind and _named(event, wanted[kind]) for kind in _NAMED if kind in wanted)
        )

    return passes


def _action(action: str, asked: str) -> bool:
    return action == asked or (asked in _FUZZY and action.startswith(f"{asked}:"))


def _named(event: Logged, values: list[str]) -> bool:
    return any(event.id.startswith(value) or event.name.startswith(value) for value in values)


def _of_image(event: Logged, values: list[str]) -> bool:
    named = event.labels.get("name" if event.kind == "image" else "image", "")
    names = {event.id, named, _without_tag(event.id), _without_tag(named)}
    return not names.isdisjoint(values)


def _without_tag(name: str) -> str:
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag and head != "sha256" else name
