"""GET /shoal/cluster/health: how the managers are. Answers without a leader, too."""

import os
from pathlib import Path
from typing import Protocol

from aiohttp import web

from cluster.objects import Node
from manager.api.access import ACCESS, Access
from manager.api.request import answer
from manager.health import ClusterHealth, ManagerHealth, Role
from manager.raft import Raft


class Diagnosed(Access, Protocol):
    """What the report needs of the manager, besides."""

    async def cluster_health(self) -> ClusterHealth:
        """Ask every manager, this one included."""


async def cluster_health(request: web.Request) -> web.Response:
    """Every manager is asked for itself; one that is silent for two seconds is named."""
    manager: Diagnosed = request.app[ACCESS]  # type: ignore[assignment]
    return answer(await manager.cluster_health())


def own_health(access: Access, raft: Raft, advertised: str, state_dir: Path, expires: int) -> ManagerHealth:
    """What a manager says of itself. expires: its certificate, Unix time in ns."""
    status, syncs = raft.status(), raft.sync_latency()
    node = access.store.view().get(Node, access.node_id)
    role: Role = "leader" if access.leading() else "follower"
    problem = ""
    if raft.left_behind is not None:
        role, problem = "left-behind", raft.left_behind.reason
    elif status.removed:
        role, problem = "left-behind", "it was removed from the managers"
    elif access.node_id not in status.members:
        role, problem = "learner", "it has no vote yet"
    elif status.no_room:
        problem = status.no_room
    room = os.statvfs(state_dir)
    return ManagerHealth(
        id=access.node_id,
        hostname=node.description.hostname if node else "",
        address=status.members.get(access.node_id, advertised),
        role=role,
        term=status.term,
        leader=access.known_leader(),
        last_contact=0 if role == "leader" else status.since_leader,
        last_index=status.last_index,
        applied_index=raft.applied_index,
        snapshot_index=status.snapshot_index,
        snapshot_age=_age(state_dir / "snapshot", access.clock.now()),
        journal_bytes=status.journal_bytes,
        free_bytes=room.f_bavail * room.f_frsize,
        sync_p50=syncs.p50,
        sync_p99=syncs.p99,
        certificate_expires=expires,
        advertised=advertised,
        problem=problem,
    )


def _age(path: Path, now: int) -> int | None:
    try:
        return max(0, now - path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None
