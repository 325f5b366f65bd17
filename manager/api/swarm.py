"""/swarm: the cluster's settings and join tokens. (init, join and leave are the node daemon's.)"""

from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cluster.codec import carried
from cluster.defaults import stored_cluster
from cluster.engine_json import cluster_json
from cluster.errors import OutOfSequence
from cluster.identity import new_join_token
from cluster.objects import Cluster, Node
from cluster.root_ca import issuer
from cluster.spec import ClusterSpec, EncryptionConfig
from cluster.states import NodeState, Role
from cluster.validate import check_cluster
from manager.api.access import ACCESS, Access, cluster_of
from manager.api.reads import state
from manager.api.request import answer, body, strict_flag, version
from manager.ca.root import signing, wanted_tls
from manager.keys.locks import with_autolock
from manager.store import Transaction, View


async def inspect_swarm(request: web.Request) -> web.Response:
    """GET /swarm, with the join tokens."""
    cluster = cluster_of(await state(request))
    return answer(cluster_json(cluster, issuer=_issuer(cluster)))


async def update_swarm(request: web.Request) -> web.Response:
    """POST /swarm/update: settings, the root CA, and rotation of the join tokens and of the unlock key."""
    access = request.app[ACCESS]
    index = version(request, "swarm")
    spec = await body(request, ClusterSpec)
    check_cluster(spec)
    before = cluster_of(await access.confirmed())
    if before.version != index:
        raise OutOfSequence()
    settings = merged(before.spec, spec)
    changed = replace(before, spec=settings)
    if spec.ca_config is not None:
        changed = await access.authority.changed(before, settings, spec.ca_config)

    def update(tx: Transaction) -> None:
        cluster = cluster_of(tx)
        if cluster.version != index:
            raise OutOfSequence()
        root = changed.root_ca
        tokens = root.join_tokens
        if strict_flag(request, "rotateWorkerToken"):
            tokens = replace(tokens, worker=new_join_token(root.certificate, access.rng))
        if strict_flag(request, "rotateManagerToken"):
            tokens = replace(tokens, manager=new_join_token(root.certificate, access.rng))
        locked = with_autolock(changed, access.rng, rotate=strict_flag(request, "rotateManagerUnlockKey"))
        tx.update(replace(locked, root_ca=replace(root, join_tokens=tokens)))

    await access.store.update(update)
    return web.Response()


def merged(old: ClusterSpec, new: ClusterSpec) -> ClusterSpec:
    """The settings with those that were given replaced; what is left out stays."""
    changes: dict[str, Any] = {}
    for field in msgspec.structs.fields(ClusterSpec):
        given, before = getattr(new, field.name), getattr(old, field.name)
        if given is None or field.name == "name":
            continue
        if isinstance(given, EncryptionConfig):
            pass  # false is a value, too: autolock is turned off
        elif isinstance(given, msgspec.Struct) and isinstance(before, msgspec.Struct):
            inner = {
                f.name: getattr(given, f.name)
                for f in msgspec.structs.fields(type(given))
                if getattr(given, f.name) != f.default
            }
            given = replace(before, **inner)
        changes[field.name] = given
    return stored_cluster(carried(old, replace(old, **changes)))


async def unlock_key(request: web.Request) -> web.Response:
    """GET /swarm/unlockkey: empty, as dockerd answers, without autolock."""
    return answer({"UnlockKey": cluster_of(await state(request)).unlock_key})


async def swarm_info(request: web.Request) -> web.Response:
    """GET /internal/info: the Swarm part of GET /info, for the node daemon. Answers without a leader too."""
    access = request.app[ACCESS]
    return answer(info(access, access.store.view()))


def info(access: Access, view: View) -> dict[str, Any]:
    """What this manager knows of the cluster, for `docker info`."""
    cluster = view.cluster()
    nodes = list(view.all(Node))
    managers = [node for node in nodes if node.role is Role.MANAGER and node.manager_status is not None]
    own = view.get(Node, access.node_id)
    result: dict[str, Any] = {
        "NodeID": access.node_id,
        "NodeAddr": own.manager_status.address.rpartition(":")[0] if own and own.manager_status else "",
        "LocalNodeState": "active" if cluster is not None else "pending",
        "ControlAvailable": cluster is not None,
        "Error": access.trouble() or ("" if access.known_leader() else access.no_leader()),
        "RemoteManagers": [
            {"NodeID": node.id, "Addr": node.manager_status.address}
            for node in managers
            if node.manager_status
        ],
        "Nodes": len(nodes),
        "Managers": len(managers),
    }
    warnings = [*access.warnings(), *_rotation(cluster, nodes)] if access.known_leader() else []
    if warnings:
        result["Warnings"] = warnings
    if cluster is not None:
        result["Cluster"] = _described(cluster)
    return result


def _rotation(cluster: Cluster | None, nodes: list[Node]) -> list[str]:
    """That a new root CA waits for nodes that are away."""
    if cluster is None or cluster.root_ca.rotation is None:
        return []
    wanted = wanted_tls(cluster)
    away = [node for node in nodes if node.status.state is NodeState.DOWN and node.tls != wanted]
    if not away:
        return []
    names = ", ".join(sorted(node.description.hostname or node.id for node in away))
    advice = "start or unlock them, or strike them off (docker node rm --force)"
    return [f"a new root CA waits for nodes that are down: {names}; {advice}"]


def _described(cluster: Cluster) -> dict[str, Any]:
    return cluster_json(cluster, issuer=_issuer(cluster), tokens=False)


def _issuer(cluster: Cluster) -> tuple[bytes, bytes]:
    return issuer(signing(cluster.root_ca).certificate)
