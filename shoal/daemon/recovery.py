"""The ways back that begin on one node: a new cluster from a lost majority's survivor, or from a backup."""

import asyncio
import logging
import shutil
from pathlib import Path

from msgspec.structs import replace

from cluster.errors import Conflict, InvalidArgument, ShoalError, Unavailable
from cluster.messages import ManagerAddress
from cluster.states import Role
from manager.keys.locks import lock_of
from shoal.daemon.addressing import moved
from shoal.daemon.manager_process import ManagerFailed
from shoal.daemon.membership import Membership
from shoal.daemon.moving import Moving
from shoal.daemon.restore import RestoreRequest, stage, verified
from shoal.daemon.swarm_requests import (
    InitRequest,
    addresses,
    advertised,
    listening,
    own_addresses,
    split,
)

log = logging.getLogger("shoal.daemon.recovery")

NO_STATE = (
    "--force-new-cluster needs the state of an earlier cluster on this node, as a manager has it: run it on "
    'a manager that survived, or restore a backup with "shoal cluster restore"'
)
NOTHING_LOST = (
    "this manager works with the others, so no quorum is lost, and a forced new cluster would be a second "
    "one beside theirs: to have fewer managers, demote them (docker node demote); to go on alone, stop the "
    "others first"
)
ANSWER_WITHIN = 5.0
RESTARTING = "the manager of this node starts again, for a new cluster: try again in a moment"
IN_A_CLUSTER = (
    "this node is part of a cluster, and a restored one would take its place: restore on a fresh node, or add"
    " --force to leave the cluster that this node is in"
)


class Recovery(Moving):
    """Part of SwarmNode."""

    async def _force_new_cluster(self, request: InitRequest) -> str:
        """Go on alone with the state that is here; this node's id. The tasks and the workers stay.

        Raft does it in one durable step. What shoald notes besides is for its own next start, and is mended
        by the manager when it is missing.
        """
        membership = self._membership
        if membership is None or membership.role is not Role.MANAGER or not self._store.has_raft():
            raise InvalidArgument(NO_STATE)
        if self._store.locked and not self._proxy.attached:
            raise Unavailable(self._proxy.refusal)
        await self._must_be_alone()
        forced = await asyncio.to_thread(_alone, membership, request)
        await self._stop_manager(RESTARTING)
        self._membership = forced
        try:
            await self._start_manager(("--force-new-cluster",))
        except ManagerFailed:
            self._membership = membership
            await self._manager.resume()
            self._proxy.attach(self._socket)
            raise
        self._store.save(forced)
        if forced.advertise_address != membership.advertise_address:
            await self._restart_agent()
        else:
            self._agents.reconnect()
        log.warning("a new cluster was forced on this node", extra={"node": forced.node_id})
        return forced.node_id

    async def _must_be_alone(self) -> None:
        """Refuse where nothing is lost: the others would go on, and there would be two clusters."""
        try:
            seen = await self._proxy.call("GET", "/internal/info", timeout=ANSWER_WITHIN)
        except ShoalError as error:
            log.info("the manager here says nothing", extra={"reason": str(error)})
            return
        if not seen.get("Error") and seen.get("Managers", 0) > 1:
            raise Conflict(NOTHING_LOST)

    async def restore(self, request: RestoreRequest, file: Path) -> Membership:
        """Become the only manager of the cluster in that backup. Nothing changes unless all of it is sound.

        Raises Conflict when the node is in a cluster and may not leave it; Unauthorized, DamagedBackup.
        """
        async with self._lock:
            if self._membership is not None and not request.force:
                raise Conflict(IN_A_CLUSTER)
            contents = await asyncio.to_thread(verified, file, request.passphrase)
            init = InitRequest(
                listen_addr=request.listen_addr,
                advertise_addr=request.advertise_addr,
                data_path_addr=request.data_path_addr,
            )
            where = await addresses(init)
            root = self._store.restored
            try:
                membership = await asyncio.to_thread(stage, contents, where, root, self._clock, self._rng)
                if self._membership is not None:
                    await self._undo()
                self._store.take_restored()
            finally:
                shutil.rmtree(root, ignore_errors=True)
            self._store.locks = (lock_of(contents.cluster),)
            self._membership = membership
            try:
                await self._start_manager()
            except ManagerFailed:  # the state is there: keep trying, and say why it does not run
                await self._manager.resume()
                self._proxy.attach(self._socket)
                raise
            finally:
                await self._agents.start(membership, self._events)
            log.warning(
                "the cluster was restored from a backup",
                extra={"node": membership.node_id, "index": contents.head.index},
            )
            return membership

    @property
    def data_root(self) -> Path:
        """Where shoald keeps its data."""
        return self._store.root.parent


def _alone(membership: Membership, request: InitRequest) -> Membership:
    """The membership of a cluster of this node, at its present address unless another is given."""
    listen = listening(request.listen_addr) if request.listen_addr else membership.listen_address
    advertise = membership.advertise_address
    if request.advertise_addr:
        host, port = split(request.advertise_addr)
        advertise = advertised(f"{host}:{port or split(advertise)[1]}", listen)
    data_path = _host(advertised(request.data_path_addr, listen)) if request.data_path_addr else ""
    local = _host(advertise) in own_addresses()
    alone = replace(membership, listen_address=listen, managers=(ManagerAddress(membership.node_id, ""),))
    return moved(alone, advertise, advertise_local=local, data_path=data_path)


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
