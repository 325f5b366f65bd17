"""Reads of the cluster's state, and the label that says what an answer is (`cluster.consistency`)."""

from aiohttp import web

from cluster.consistency import CONFIRMED, CONSISTENCY, READ, STALE, WRITE
from cluster.errors import InvalidArgument, Unavailable
from cluster.seams import MILLISECOND
from manager.api.access import ACCESS, Access, Read
from manager.store import View

_LABELS: web.RequestKey[dict[str, str]] = web.RequestKey("labels", dict[str, str])


async def read(request: web.Request) -> Read:
    """The state that the request is answered from; the answer will say which.

    Raises Unavailable when it can't be confirmed or there is none here yet; InvalidArgument.
    """
    wanted = request.headers.get(CONSISTENCY, CONFIRMED).strip().lower()
    if wanted not in (CONFIRMED, STALE):
        raise InvalidArgument(
            f"invalid {CONSISTENCY} {wanted!r}: write {CONFIRMED} (the default) or {STALE}, "
            "which is answered from this manager's own state"
        )
    if wanted == CONFIRMED:
        return await confirm(request)
    access = request.app[ACCESS]
    found = access.own_read()
    if found.view.cluster() is None:
        raise Unavailable(
            "this manager has not learnt the cluster's state yet: try again, or ask another one"
        )
    request[_LABELS] = {READ: describe(found, access)}
    return found


def wants_confirmed(request: web.Request) -> bool:
    """Whether the answer must be as new as any acknowledged write."""
    return request.headers.get(CONSISTENCY, CONFIRMED).strip().lower() != STALE


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
        return f"{CONFIRMED}; {index}; {leader}"
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
