"""Reads of the cluster's state, and the header by which every answer says what it is.

    Shoal-Read: confirmed; index=123; leader=ID             has every write acknowledged before the request
    Shoal-Read: follower; index=120; leader=ID; age=0.804s  this manager's own state, at most so old
    Shoal-Write: committed; index=124; leader=ID            done: a majority has everything up to that index

A request with `Shoal-Consistency: stale` is answered at once from the manager's own state, also without a
leader. The first word is then what the manager takes itself for (`follower`, `leader`), and `age=unknown`
means that its state has not been confirmed since the manager started.
"""

from aiohttp import web

from cluster.errors import InvalidArgument
from cluster.seams import MILLISECOND
from manager.api.access import ACCESS, Access, Read
from manager.store import View

READ = "Shoal-Read"
WRITE = "Shoal-Write"
CONSISTENCY = "Shoal-Consistency"
_LABELS: web.RequestKey[dict[str, str]] = web.RequestKey("labels", dict[str, str])
_CONFIRMED, _STALE = "confirmed", "stale"


async def read(request: web.Request) -> Read:
    """The state that the request is answered from; the answer will say which.

    Raises Unavailable when it can't be confirmed, InvalidArgument for a consistency that there isn't.
    """
    wanted = request.headers.get(CONSISTENCY, _CONFIRMED).strip().lower()
    if wanted not in (_CONFIRMED, _STALE):
        raise InvalidArgument(
            f"invalid {CONSISTENCY} {wanted!r}: write {_CONFIRMED} (the default) or {_STALE}, "
            "which is answered from this manager's own state"
        )
    if wanted == _CONFIRMED:
        return await confirm(request)
    access = request.app[ACCESS]
    found = access.own_read()
    request[_LABELS] = {READ: describe(found, access)}
    return found


async def confirm(request: web.Request) -> Read:
    """As `read`, confirmed whatever the request wants."""
    access = request.app[ACCESS]
    found = await access.confirmed_read()
    request[_LABELS] = {READ: describe(found, access)}
    return found


async def state(request: web.Request) -> View:
    """As `read`, only the state itself."""
    return (await read(request)).view


def describe(found: Read, access: Access) -> str:
    """The header's value."""
    index, leader = f"index={found.view.index}", f"leader={found.managers.leader or 'none'}"
    if found.confirmed:
        return f"{_CONFIRMED}; {index}; {leader}"
    role = "leader" if found.managers.leader == access.node_id else "follower"
    return f"{role}; {index}; {leader}; age={_seconds(found.age)}"


def _seconds(age: int | None) -> str:
    """Rounded up: never younger than it is."""
    if age is None:
        return "unknown"
    milliseconds = -(-age // MILLISECOND)
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}s"


def written(request: web.Request) -> None:
    """The answer will say that the request is done, by this manager as the leader."""
    access = request.app[ACCESS]
    index = access.store.view().index
    request[_LABELS] = {WRITE: f"committed; index={index}; leader={access.node_id}"}


async def label(request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers on whatever is answered, errors included. For `on_response_prepare`."""
    response.headers.update(request.get(_LABELS, {}))
