"""The networks of this node alone, as they are made, looked up and removed: a part of the network plane."""

from collections.abc import Mapping, Sequence

from cluster.dataplane import NetworkRecord
from cluster.spec import NetworkSpec
from netplane.attaching import Attaching
from netplane.errors import ActiveEndpoints, NetworkNotFound
from netplane.host_table import Drops
from netplane.local_networks import SWARM
from netplane.model import LocalNetwork, Segment


class NodeNetworks(Attaching):
    """The base of NetPlane."""

    _offered: dict[str, NetworkRecord]

    def networks(self) -> Mapping[str, LocalNetwork]:
        """The local networks by id: bridge, host, none, and what users made."""
        return {id: each for id, each in self._local.all().items() if each.spec.scope != SWARM}

    def network(self, name_or_id: str) -> LocalNetwork:
        """A local network by id or name; raises NetworkNotFound."""
        found = self._local.find(name_or_id)
        if found is None or found.spec.scope == SWARM:
            raise NetworkNotFound(name_or_id)
        return found

    def residents(self, network_id: str) -> Mapping[str, str]:
        """The sandboxes of this node in a network, local or not: sandbox id → "a.b.c.d/prefix"."""
        return {
            sandbox_id: record.sandbox.addresses[network_id]
            for sandbox_id, record in self._sandboxes.items()
            if network_id in record.sandbox.addresses
        }

    async def drops(self) -> tuple[dict[str, Drops], int]:
        """Packets that this node dropped, by network; and frames of the cluster's networks that came from
        no node. Since their rules were written the last time as a whole."""
        return await self._run(self._balancers.host.drops)

    async def create_network(self, spec: NetworkSpec) -> LocalNetwork:
        """Make a local network."""
        async with self._lock:
            network = await self._run(self._local.create, spec)
            await self._run(self._balancers.apply_host, self._segments())
            self._tell("create", network.id)
            return network

    async def remove_network(self, name_or_id: str) -> None:
        """Remove a local network that is not in use."""
        async with self._lock:
            network = self.network(name_or_id)
            if residents := self.residents(network.id):
                raise ActiveEndpoints(
                    f"error while removing network: network {network.name} has active endpoints "
                    f"({', '.join(self._names_of(sorted(residents)))})"
                )
            await self._run(self._local.remove, network.id)
            self.notice("destroy", network.id, {"name": network.name, "type": network.driver})
            await self._run(self._balancers.apply_host, self._segments())

    def gives_addresses(self, network_id: str) -> bool:
        """Whether the addresses of a network are this node's to give: its own, or its part of one."""
        return self._local.find(network_id) is not None

    async def take_part(self, record: NetworkRecord) -> None:
        """Have a part of a swarm-scoped network whose addresses are the nodes', for as long as a sandbox is
        in it; also when the next one comes. Raises NetworkError if this node has not its settings."""
        self._offered[record.id] = record
        async with self._lock:
            await self._run(self._local.take_part, record)
            await self._run(self._balancers.apply_host, self._segments())

    async def _local_segment(self, network_id: str, record: NetworkRecord | None) -> Segment | None:
        """What a sandbox is plugged into in a network whose addresses are this node's; None if there is none
        such. `record` is what the managers say of it: this node takes part from now on, if it has the
        network's settings. Raises NotFound, NetworkError."""
        local = self._local.find(network_id)
        record = record or self._offered.get(network_id)
        if local is None and record is not None and record.driver != "overlay":
            await self.take_part(record)
            local = self._local.find(network_id)
        if local is None:
            return None
        segment = self._local.segment(local.id)
        if segment is None or segment.child is not None:
            segment = await self._run(self._local.renewed, local.id)
        return segment

    async def _leave_unused_parts(self, in_use: set[str]) -> None:
        """Forget this node's part of swarm-scoped networks that no sandbox is in any more; later, if one is
        being made, which may be about to be in it."""
        if len(self._building) > 1 or not self._local.unused_parts(in_use):
            return
        async with self._lock:
            for part in self._local.unused_parts(in_use):
                await self._run(self._local.remove, part.id)
            await self._run(self._balancers.apply_host, self._segments())

    def _names_of(self, sandbox_ids: Sequence[str]) -> list[str]:
        """As dockerd lists endpoints."""
        found = []
        for sandbox_id in sandbox_ids:
            attachments = self._sandboxes[sandbox_id].spec.attachments
            name = next((name for each in attachments for name in each.names), sandbox_id[:12])
            found.append(f'name:"{name}" id:"{sandbox_id[:12]}"')
        return found
