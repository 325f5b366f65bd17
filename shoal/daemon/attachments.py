"""Places in the cluster's attachable networks for this node's standalone containers."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from cluster.attaching import Attached, AttachRequest, DetachRequest, FindRequest, Held, KeepRequest, Kept
from cluster.errors import NotFound, ShoalError, Unavailable
from cluster.seams import SECOND, Clock
from manager.rpc.join import posting
from netplane.errors import NetworkNotFound
from shoal.daemon.membership import Membership, MembershipStore
from shoal.daemon.proxy import RemoteError
from worker.containers.record import record_of
from worker.endpoints import EndpointIPAMConfig, EndpointSettings, disconnect_running
from worker.engine import Engine

log = logging.getLogger("shoal.daemon.attachments")

T = TypeVar("T")
_TELL = 60 * SECOND
"""How often the managers are told which places are in use: a word that was lost is made good by then."""
_SOON = SECOND
Place = tuple[str, str]
"""A container's id and a network's."""


class Attachments:
    """Asks the managers. `membership` is this node's at present."""

    def __init__(
        self,
        engine: Engine,
        store: MembershipStore,
        membership: Callable[[], Membership | None],
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._store = store
        self._membership = membership
        self._clock = clock
        self._known: set[str] = set()
        self._asked = self._used()  # those that an earlier daemon asked for
        self._busy: dict[str, asyncio.Future[None]] = {}  # by container, while a request of it is under way
        self._asking = 0  # requests for places under way
        self._keeping = asyncio.Lock()
        """Held while the managers are told which places are used: what is just being given is not to be taken
        back, so none is asked for meanwhile."""
        self._answers = ""  # the manager that answered last

    def knows(self, network_id: str) -> bool:
        """True for a network that containers were found to be allowed in."""
        return network_id in self._known

    async def find(self, name: str) -> str:
        """The id of a network, by name or id. NotFound, Forbidden if it isn't attachable."""
        if self._membership() is None:
            raise NetworkNotFound(name)
        try:
            found = await self._ask("/find", FindRequest(name), Attached)
        except RemoteError as error:
            if error.status == 404:
                raise NetworkNotFound(name) from error
            raise
        self._known.add(found.network_id)
        return found.network_id

    async def attach(
        self, container_id: str, network_id: str, settings: EndpointSettings
    ) -> EndpointSettings:
        """Ask for a place; the settings with the address that the managers gave."""
        wanted = settings.ipam_config or EndpointIPAMConfig()
        request = AttachRequest(
            network_id,
            container_id,
            name=self._engine.runtime.get(container_id)[0].name,
            aliases=settings.aliases or (),
            address=wanted.ipv4_address,
        )
        async with self._alone(container_id):
            async with self._keeping:
                self._asking += 1
            try:
                given = await self._ask("", request, Attached)
                self._asked.add((container_id, network_id))
            finally:
                self._asking -= 1
        if given.network is not None:
            await self._engine.network.take_part(given.network)
            return settings
        return replace(settings, ipam_config=replace(wanted, ipv4_address=given.address))

    async def detach(self, container_id: str, network_id: str = "") -> None:
        """Give a container's places back, or the one in that network. None there is no error, and managers
        that don't answer are told later."""
        gone = {
            place
            for place in self._asked | self._used()
            if place[0] == container_id and network_id in ("", place[1])
        }
        if not gone or self._membership() is None:
            return
        self._asked -= gone
        try:
            async with self._alone(container_id):
                await self._ask("/detach", DetachRequest(container_id, network_id), dict[str, object])
        except ShoalError as error:
            log.warning("a place in a network is given back later", extra={"reason": str(error)})

    async def run(self) -> None:
        """Tell the managers from time to time which places are in use. Runs until cancelled."""
        while True:
            await self._clock.sleep(_TELL)
            while self._asking:
                await self._clock.sleep(_SOON)
            async with self._keeping:
                if self._membership() is None:
                    continue
                try:
                    kept = await self._ask("/keep", KeepRequest(self._places(), self._held()), Kept)
                except ShoalError as error:
                    log.info("the managers don't answer", extra={"reason": str(error)})
                    continue
                for container_id, network_id in kept.lost:
                    await self._leave(container_id, network_id)

    async def _leave(self, container_id: str, network_id: str) -> None:
        """Two with one address disturb each other: the one that the managers don't know goes."""
        log.error(
            "a container is taken out of a network: its address was given to another. Start it again",
            extra={"container": container_id, "network": network_id},
        )
        self._asked.discard((container_id, network_id))
        try:
            await disconnect_running(self._engine, container_id, network_id)
        except ShoalError as error:  # it ended meanwhile
            log.info("it was not there any more", extra={"reason": str(error)})

    def _held(self) -> tuple[Held, ...]:
        """The places of running containers, with their addresses."""
        sandboxes = self._engine.network.sandboxes()
        found = []
        for container_id, network_id in sorted(self._used()):
            config = self._engine.runtime.get(container_id)[0]
            record = record_of(config)
            endpoints = record.endpoints if record is not None else {}
            settings = endpoints.get(network_id) or endpoints.get(self._engine.network_name(network_id))
            aliases = (settings.aliases if settings is not None else None) or ()
            address = sandboxes[container_id].addresses[network_id]
            found.append(Held(container_id, network_id, address, config.name, aliases))
        return tuple(found)

    @contextlib.asynccontextmanager
    async def _alone(self, container_id: str) -> AsyncGenerator[None]:
        """One request of a container after the other; those of others don't wait for it."""
        while container_id in self._busy:
            await asyncio.wait((self._busy[container_id],))
        done = self._busy[container_id] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._busy[container_id]
            done.set_result(None)

    def _places(self) -> tuple[Place, ...]:
        there = {config.id for config, _ in self._engine.runtime.list()}
        self._asked = {place for place in self._asked if place[0] in there}
        return tuple(sorted(self._asked | self._used()))

    def _used(self) -> set[Place]:
        """The places that running containers have in cluster networks."""
        found: set[Place] = set()
        for id, sandbox in self._engine.network.sandboxes().items():
            try:
                of_user = bool(self._engine.runtime.get(id)[0].record)
            except NotFound:  # it is being taken down, or a task's that is being made
                continue
            if of_user:
                given = self._engine.network.gives_addresses
                found.update((id, network) for network in sandbox.addresses if not given(network))
        return found

    async def _ask(self, path: str, request: msgspec.Struct, kind: type[T]) -> T:
        """One manager after the other, until one answers. Raises RemoteError, Unavailable."""
        membership = self._membership()
        if membership is None:
            raise Unavailable("this node is in no cluster")
        reason, answered = "no manager is known", ""
        content = msgspec.json.encode(request)
        try:
            identity = self._store.identity()
        except FileNotFoundError as error:
            raise Unavailable("this node is leaving its cluster") from error
        async with posting(identity) as post:
            for manager in sorted(membership.managers, key=lambda each: each.address != self._answers):
                try:
                    said = await post(manager.address, f"/attachments/{membership.node_id}{path}", content)
                except (OSError, TimeoutError) as error:
                    reason = f"{manager.address}: {str(error) or type(error).__name__}"
                    continue
                self._answers = manager.address
                if said.status < 400:
                    return msgspec.json.decode(said.text, type=kind)
                if said.status < 500 and not said.not_done:
                    raise RemoteError(said.status, _message(said.text))
                answered = _message(said.text)
        raise Unavailable(answered or f"no manager could be asked: {reason}")


def _message(text: str) -> str:
    try:
        content = msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError:
        return text
    return str(content.get("message", text))
