"""Lists that are encoded once: what they were made of never changes, so the same makes the same again.

Objects and tables of the store are immutable. An answer is given again when every table that it was made
from is still the very same; otherwise what is new is encoded, and put together with the pieces of the other
objects. Nothing expires and nothing can be stale.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web

from cluster.engine_json import service_json, tasks_json
from cluster.objects import Network, Node, Service, StoreObject, Task
from manager.store import View

T = TypeVar("T", bound=StoreObject)
MAX_ANSWERS = 16
MAX_BYTES = 16 << 20
"""Of all answers kept together. One that is larger is not kept."""
_SLACK = 100
_encoder = msgspec.json.Encoder()


class Pieces(Generic[T]):
    """The JSON of single objects. `others`: what else an object's JSON is made of."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._known: dict[str, tuple[T, tuple[object, ...], bytes]] = {}

    def of(
        self,
        view: View,
        objects: Iterable[T],
        others: Callable[[T], tuple[object, ...]],
        described: Callable[[list[T]], Sequence[Any]],
    ) -> list[bytes]:
        """The objects' JSON, in their order; `described` makes plain data of those that are new."""
        result: list[bytes] = []
        new: list[tuple[int, T, tuple[object, ...]]] = []
        for obj in objects:
            made_of = others(obj)
            known = self._known.get(obj.id)
            if known is not None and known[0] is obj and known[1] == made_of:
                result.append(known[2])
            else:
                new.append((len(result), obj, made_of))
                result.append(b"")
        values = described([obj for _, obj, _ in new])
        for (place, obj, made_of), value in zip(new, values, strict=True):
            result[place] = piece = _encoder.encode(value)
            self._known[obj.id] = (obj, made_of, piece)
        if len(self._known) > 2 * view.count(self._kind) + _SLACK:
            self._known = {id: known for id, known in self._known.items() if view.get(self._kind, id)}
        return result


class Encoded:
    """A manager's encoded lists."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, tuple[tuple[object, ...], bytes]] = OrderedDict()
        self._bytes = 0
        self._tasks = Pieces(Task)
        self._services = Pieces(Service)

    def answer(
        self, what: Hashable, view: View, kinds: tuple[type[StoreObject], ...], make: Callable[[], bytes]
    ) -> bytes:
        """The answer to `what`, which `make` makes of the view's tables of these kinds and nothing else."""
        tables = tuple(view.table(kind.kind) for kind in kinds)
        kept = self._answers.get(what)
        if kept is not None and all(a is b for a, b in zip(kept[0], tables, strict=True)):
            self._answers.move_to_end(what)
            return kept[1]
        made = make()
        self._forget(what)
        if len(made) <= MAX_BYTES:
            self._answers[what] = (tables, made)
            self._bytes += len(made)
            while len(self._answers) > MAX_ANSWERS or self._bytes > MAX_BYTES:
                self._forget(next(iter(self._answers)))
        return made

    def _forget(self, what: Hashable) -> None:
        kept = self._answers.pop(what, None)
        if kept is not None:
            self._bytes -= len(kept[1])

    def tasks(self, view: View, tasks: Iterable[Task]) -> bytes:
        """GET /tasks."""

        def network(id: str) -> Network | None:
            return view.get(Network, id)

        def networks(task: Task) -> tuple[object, ...]:
            return tuple(network(attachment.network_id) for attachment in task.networks)

        return _list(self._tasks.of(view, tasks, networks, lambda new: tasks_json(new, network)))

    def services(
        self, view: View, services: list[Service], status: Callable[[Service], tuple[int, int, int]] | None
    ) -> bytes:
        """GET /services; with their running, desired and completed tasks."""

        def network(id: str) -> Network | None:
            return view.get(Network, id)

        def networks(service: Service) -> tuple[object, ...]:
            endpoint = service.endpoint
            return tuple(network(vip.network_id) for vip in (endpoint.virtual_ips if endpoint else ()))

        pieces = self._services.of(
            view, services, networks, lambda new: [service_json(s, network) for s in new]
        )
        if status is None:
            return _list(pieces)
        return _list(_with_status(piece, status(s)) for piece, s in zip(pieces, services, strict=True))


ENCODED: web.AppKey[Encoded] = web.AppKey("encoded", Encoded)
OF_TASKS = (Task, Network, Service, Node)
OF_SERVICES = (Service, Task, Network)


def _list(pieces: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(pieces) + b"]"


def _with_status(piece: bytes, status: tuple[int, int, int]) -> bytes:
    running, desired, completed = status
    told = {"RunningTasks": running, "DesiredTasks": desired, "CompletedTasks": completed}
    return piece[:-1] + b',"ServiceStatus":' + _encoder.encode(told) + b"}"
