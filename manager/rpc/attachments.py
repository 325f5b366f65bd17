"""Places in attachable networks for containers that belong to no service (`docker run --network`).

A node asks for its own containers only. The place is noted at the node's object, and given back with it; the
allocator gives the address.
"""

import logging
from collections.abc import Callable

from aiohttp import web
from msgspec.structs import replace

from cluster.attaching import Attached, AttachRequest, DetachRequest, FindRequest, Held, KeepRequest, Kept
from cluster.errors import Conflict, Forbidden, InvalidArgument, NotFound, ShoalError, Unavailable
from cluster.objects import ContainerAttachment, Network, Node
from cluster.seams import MILLISECOND, SECOND
from manager.allocator.networks import has_addresses
from manager.api.access import ACCESS, Access
from manager.api.app import Handler, on_the_leader
from manager.api.lookup import find_network
from manager.api.request import answer, body
from manager.dispatcher.dataplane import network_record
from manager.store import Transaction, View

log = logging.getLogger("shoal.attachments")

PATIENCE = 5 * SECOND
_POLL = 10 * MILLISECOND
_MOST = 4096
"""Places of one node."""


def routes(app: web.Application, own_node: Callable[[Handler], Handler], forwarded: str) -> None:
    """Add the handlers, for nodes and, under the prefix `forwarded`, for managers that pass them on."""
    for path, handler in (("", attach), ("/find", find), ("/detach", detach), ("/keep", keep)):
        there = on_the_leader(handler)
        app.router.add_post(f"/attachments/{{node_id}}{path}", own_node(there))
        app.router.add_post(f"{forwarded}/attachments/{{node_id}}{path}", there)


async def find(request: web.Request) -> web.Response:
    """POST …/find."""
    wanted = await body(request, FindRequest)
    return answer(Attached(_attachable(request.app[ACCESS].store.view(), wanted.network).id))


async def attach(request: web.Request) -> web.Response:
    """POST /attachments/{node_id}. Safe to repeat: a container keeps its address."""
    access, node_id = request.app[ACCESS], request.match_info["node_id"]
    wanted = await body(request, AttachRequest)
    network = _attachable(access.store.view(), wanted.network)
    if not has_addresses(network):
        return answer(Attached(network.id, network=network_record(network)))
    network_id = ""

    def note(tx: Transaction) -> None:
        nonlocal network_id
        network, node = _attachable(tx, wanted.network), _node(tx, node_id)
        network_id = network.id
        if network.encrypted and not node.description.encryption.works:
            raise Forbidden(
                f"network {network.spec.name} is encrypted, and this node can't encrypt: "
                f"{node.description.encryption.trouble or 'it is of an older version'}"
            )
        if _place(node, wanted.container_id, network_id) is not None:
            return
        _check_number(node, len(node.containers) + 1)
        place = ContainerAttachment(
            container_id=wanted.container_id,
            network_id=network_id,
            name=wanted.name,
            aliases=wanted.aliases,
            wanted=wanted.address,
        )
        tx.update(replace(node, containers=(*node.containers, place)))

    await access.store.update_retrying(note)
    return answer(Attached(network_id, await _address(access, node_id, wanted.container_id, network_id)))


async def _address(access: Access, node_id: str, container_id: str, network_id: str) -> str:
    """Wait for the allocator; what it can't place is forgotten. Raises Conflict, Unavailable."""
    deadline = access.clock.monotonic() + PATIENCE
    kind: type[ShoalError] = Unavailable
    reason = "its address was not allocated in time"
    while access.clock.monotonic() < deadline:
        node = access.store.view().get(Node, node_id)
        place = _place(node, container_id, network_id) if node is not None else None
        if place is None:
            raise NotFound(f"container {container_id} was taken out of the network again")
        if place.address:
            return place.address
        if place.error:
            kind, reason = Conflict, place.error
            break
        await access.clock.sleep(_POLL)
    await _forget(access, node_id, lambda each: _is(each, container_id, network_id))
    network = access.store.view().get(Network, network_id)
    name = network.spec.name if network is not None else network_id
    raise kind(f"could not attach to network {name}: {reason}")


async def detach(request: web.Request) -> web.Response:
    """POST …/detach. Safe to repeat."""
    gone = await body(request, DetachRequest)
    await _forget(
        request.app[ACCESS],
        request.match_info["node_id"],
        lambda each: each.container_id == gone.container_id and gone.network_id in ("", each.network_id),
    )
    return answer({})


async def keep(request: web.Request) -> web.Response:
    """POST …/keep."""
    said = await body(request, KeepRequest)
    access, node_id, kept = request.app[ACCESS], request.match_info["node_id"], set(said.places)
    await _forget(access, node_id, lambda each: (each.container_id, each.network_id) not in kept)
    lost = []
    for held in await _take_up(access, node_id, said.held):
        try:
            await _address(access, node_id, held.container_id, held.network_id)
        except (Conflict, Unavailable) as error:
            lost.append((held.container_id, held.network_id))
            log.error(
                "a container's address was given to another before it was known to be in use",
                extra={"node": node_id, "container": held.container_id, "reason": str(error)},
            )
    return answer(Kept(tuple(lost)))


async def _take_up(access: Access, node_id: str, held: tuple[Held, ...]) -> list[Held]:
    """Note the places that are not known as they are, and return them; the allocator looks at addresses."""

    def unknown(view: View) -> list[Held]:
        node = _node(view, node_id)
        return [
            each
            for each in held
            if (network := view.get(Network, each.network_id)) is not None
            and network.spec.attachable
            and has_addresses(network)
            and (
                (place := _place(node, each.container_id, each.network_id)) is None
                or place.address != each.address
            )
        ]

    def note(tx: Transaction) -> None:
        node = _node(tx, node_id)
        new = {(each.container_id, each.network_id): _noted(each) for each in unknown(tx)}
        left = tuple(each for each in node.containers if (each.container_id, each.network_id) not in new)
        _check_number(node, len(left) + len(new))
        tx.update(replace(node, containers=(*left, *new.values())))

    found = unknown(access.store.view())
    if found:
        await access.store.update_retrying(note)
    return found


def _check_number(node: Node, places: int) -> None:
    if places > _MOST:
        raise InvalidArgument(f"node {node.id} has {_MOST} containers in attachable networks already")


def _noted(held: Held) -> ContainerAttachment:
    return ContainerAttachment(
        container_id=held.container_id,
        network_id=held.network_id,
        name=held.name,
        aliases=held.aliases,
        wanted=held.address.partition("/")[0],
    )


async def _forget(access: Access, node_id: str, gone: Callable[[ContainerAttachment], bool]) -> None:
    def write(tx: Transaction) -> None:
        node = _node(tx, node_id)
        left = tuple(each for each in node.containers if not gone(each))
        if len(left) < len(node.containers):
            tx.update(replace(node, containers=left))

    node = access.store.view().get(Node, node_id)
    if node is not None and any(map(gone, node.containers)):
        await access.store.update_retrying(write)


def _attachable(view: View, name: str) -> Network:
    network = find_network(view, name)
    if network.predefined or network.spec.ingress or not network.spec.attachable:
        raise Forbidden(
            f"Could not attach to network {name}: network {network.spec.name} not manually attachable "
            "(it was created without --attachable)"
        )
    return network


def _node(view: View, node_id: str) -> Node:
    node = view.get(Node, node_id)
    if node is None:
        raise NotFound(f"node {node_id} not found")
    return node


def _place(node: Node, container_id: str, network_id: str) -> ContainerAttachment | None:
    return next((each for each in node.containers if _is(each, container_id, network_id)), None)


def _is(place: ContainerAttachment, container_id: str, network_id: str) -> bool:
    return (place.container_id, place.network_id) == (container_id, network_id)
