"""Encrypted networks in the API: whether there can be any, their keys' epochs, and a new one on demand."""

from typing import Any

from aiohttp import web
from msgspec.structs import replace

from cluster.engine_json import rfc3339
from cluster.errors import InvalidArgument
from cluster.objects import Network, Node
from cluster.states import Role
from manager.api.access import ACCESS, cluster_of
from manager.api.request import answer
from manager.encryption.rotation import awaited, cut_off, first
from manager.store import Transaction, View


def prepare_encryption(tx: Transaction, now: int) -> None:
    """Before an encrypted network is made: refuse it where no node could have it, or a manager that may lead
    knows none; begin the first epoch."""
    nodes = list(tx.all(Node))
    if not any(node.description.encryption.works for node in nodes):
        reasons = sorted(
            f"{node.description.hostname or node.id}: {said.trouble or 'an older version'}"
            for node in nodes
            if (said := node.description.encryption)
        )
        raise InvalidArgument(
            "no node of this cluster can encrypt networks, and they are never left plain instead "
            f"({'; '.join(reasons)})"
        )
    old = sorted(
        node.description.hostname or node.id
        for node in nodes
        if node.role is Role.MANAGER
        and node.description.engine.version  # it has introduced itself
        and not (node.description.encryption.method or node.description.encryption.trouble)
    )
    if old:
        raise InvalidArgument(
            "managers of an older version know no encrypted networks, and would tell nodes no keys: upgrade "
            f"or remove them first ({', '.join(old)})"
        )
    cluster = cluster_of(tx)
    if not cluster.key_epochs.newest:
        tx.update(replace(cluster, key_epochs=first(now, len(cluster.removed_nodes))))


def encryption_details(view: View) -> dict[str, Any]:
    """What GET /networks/{id} tells of an encrypted one: the epochs in force, and how far each node is."""
    epochs = cluster_of(view).key_epochs
    rotating = epochs.oldest < epochs.newest
    return {
        "Epoch": epochs.newest,
        "OldestEpoch": epochs.oldest,
        "Since": rfc3339(epochs.since),
        "Because": epochs.because,
        "WaitsFor": awaited(view, epochs) if rotating else [],
        "CutOff": cut_off(view, epochs),
        "Nodes": [
            {
                "ID": node.id,
                "Hostname": node.description.hostname,
                "Method": said.method,
                "Trouble": said.trouble,
                "Epochs": sorted(said.keys),
                "Behind": list(said.behind),
            }
            for node in sorted(view.all(Node), key=lambda node: node.id)
            if (said := node.description.encryption)
        ],
    }


async def rotate_keys(request: web.Request) -> web.Response:
    """POST /shoal/networks/rotate-keys: a new epoch, as soon as one that is under way is over."""
    access = request.app[ACCESS]

    def ask(tx: Transaction) -> None:
        if not any(network.encrypted for network in tx.all(Network)):
            raise InvalidArgument("there is no encrypted network, so there are no keys to rotate")
        cluster = cluster_of(tx)
        if not cluster.key_epochs.asked:
            tx.update(replace(cluster, key_epochs=replace(cluster.key_epochs, asked=True)))

    await access.store.update_retrying(ask)
    return answer({"Epoch": cluster_of(access.store.view()).key_epochs.newest})
