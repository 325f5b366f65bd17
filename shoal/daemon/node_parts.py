"""What a node's part in a cluster consists of: its membership, its manager process and its agent."""

import asyncio
from collections.abc import Sequence

from cluster.messages import ManagerAddress
from cluster.seams import Clock, Random
from shoal.daemon.agent_runner import AgentRunner
from shoal.daemon.manager_files import ManagersFiles
from shoal.daemon.manager_process import ManagerProcess
from shoal.daemon.membership import Membership, MembershipStore
from shoal.daemon.proxy import NOT_IN_SWARM, ManagerProxy


class NodeParts:
    """The base of SwarmNode, which makes what is declared here."""

    _store: MembershipStore
    _agents: AgentRunner
    _manager: ManagerProcess
    _files: ManagersFiles
    _proxy: ManagerProxy
    _socket: str
    _log_flags: tuple[str, ...]
    _clock: Clock
    _rng: Random
    _lock: asyncio.Lock
    """Held while the membership changes."""
    _membership: Membership | None
    _error: str

    async def _start_manager(self, extra: Sequence[str] = ()) -> None:
        self._error = ""
        await self._manager.start(extra)
        self._proxy.attach(self._socket)

    async def _stop_manager(self, refusal: str) -> None:
        await self._proxy.detach(refusal)
        await self._manager.stop()

    async def _undo(self) -> None:
        """Outside of any cluster again, with nothing left."""
        try:
            await self._agents.abandon()
        finally:
            await self._stop_manager(NOT_IN_SWARM)
            self._store.forget()
            self._membership = None

    def _other_managers(self) -> list[ManagerAddress]:
        membership = self._membership
        return [m for m in membership.managers if m.node_id != membership.node_id] if membership else []

    def _manager_arguments(self) -> list[str]:
        membership = self._membership
        assert membership is not None, "a manager is started for a member only"
        return [
            "--user={}:{}".format(*self._files.account),
            f"--node-id={membership.node_id}",
            f"--state-dir={self._store.raft}",
            f"--certificates={self._store.certificates}",
            f"--socket={self._socket}",
            f"--listen={membership.listen_address}",
            f"--advertise={membership.advertise_address}",
            *(f"--join={other.node_id}={other.address}" for other in self._other_managers()),
            *self._log_flags,
        ]
