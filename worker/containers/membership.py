"""Which networks standalone containers are in: `docker network connect` and `disconnect`."""

import asyncio

from msgspec.structs import replace

from cluster.errors import Forbidden, InvalidArgument
from worker.containers import networks
from worker.containers.life import Life, standalone
from worker.containers.record import Record, with_record
from worker.endpoints import EndpointSettings, connect_running, disconnect_running


class Membership(Life):
    """Implements `worker.endpoints.NetworkMembers`."""

    def members(self, network_id: str) -> list[str]:
        """The containers that are configured to be in a network, running or not."""
        return self._networks.members(network_id)

    async def connect(self, container_id: str, network_id: str, wanted: EndpointSettings) -> None:
        """Put a container into a network: at once if it runs, else when it starts."""
        id = self.find(container_id)[0].id
        async with self._locks[id]:
            config, state = self._runtime.get(id)
            record = standalone(config)
            mode = record.host.network_mode
            if mode == "host" or mode.startswith(networks.CONTAINER):
                raise InvalidArgument(
                    "container cannot be connected to other networks while it uses the network of the host "
                    "or of another container"
                )
            network_id = await self._networks.resolve(network_id)
            if network_id in [await self._networks.resolve(name) for name in record.endpoints]:
                name = self._engine.network_name(network_id)
                raise Forbidden(f"endpoint with name {config.name} already exists in network {name}")
            if state.running:
                await self._connect_running(id, network_id, wanted)
            await self._keep_endpoints(id, record, {**record.endpoints, network_id: wanted})

    async def _connect_running(self, id: str, network_id: str, wanted: EndpointSettings) -> None:
        if not self._attachable.knows(network_id):
            await connect_running(self._engine, id, network_id, wanted)
            return
        given = await self._attachable.attach(id, network_id, wanted)
        try:
            await connect_running(self._engine, id, network_id, given)
        except BaseException:
            await asyncio.shield(self._attachable.detach(id, network_id))
            raise

    async def disconnect(self, container_id: str, network_id: str, *, force: bool) -> None:
        """Take a container out of a network."""
        id = self.find(container_id)[0].id
        async with self._locks[id]:
            config, state = self._runtime.get(id)
            record = standalone(config)
            network_id = await self._networks.resolve(network_id)
            endpoints = {
                name: wanted
                for name, wanted in record.endpoints.items()
                if await self._networks.resolve(name) != network_id
            }
            if len(endpoints) == len(record.endpoints):
                name = self._engine.network_name(network_id)
                if force:
                    return
                raise InvalidArgument(f"container {id} is not connected to network {name}")
            if state.running:
                await disconnect_running(self._engine, id, network_id)
                await self._attachable.detach(id, network_id)
            await self._keep_endpoints(id, record, endpoints)

    async def _keep_endpoints(self, id: str, record: Record, endpoints: dict[str, EndpointSettings]) -> None:
        changed = replace(record, endpoints=endpoints)
        await self._runtime.reconfigure(with_record(self._runtime.get(id)[0], changed))
