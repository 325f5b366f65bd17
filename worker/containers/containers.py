"""Standalone containers of this node: their life from `create` to `rm`, their restarts, their networks."""

import asyncio
import functools
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from msgspec.structs import replace

from cluster.errors import Conflict, InvalidArgument, NotFound, ShoalError
from cluster.ids import new_container_id
from cluster.seams import Clock, Random
from worker.containers import links, mounts, networks, settings
from worker.containers.attach import Attachments
from worker.containers.attachable import Attachable, NoCluster
from worker.containers.execs import Execs
from worker.containers.lookup import Found, find
from worker.containers.names import check_name, new_name
from worker.containers.networks import Networks
from worker.containers.record import Record, record_of, with_record
from worker.containers.request import CreateRequest, Settings, UpdateRequest
from worker.containers.restart import Restarts, check_policy, restarts, restarts_with_daemon
from worker.endpoints import EndpointSettings, connect_running, disconnect_running
from worker.engine import Engine
from worker.runtime.launch import ContainerStartFailed
from worker.runtime.model import ContainerConfig, ContainerState, ContainerStatus
from worker.runtime.runtime import Change

log = logging.getLogger("shoal.containers")


class Containers:
    """The verbs of `docker container`. Those that end a container take a task's, too: it is replaced."""

    def __init__(
        self, engine: Engine, clock: Clock, rng: Random, attachable: Attachable | None = None
    ) -> None:
        self._engine, self._clock, self._rng = engine, clock, rng
        self._runtime = engine.runtime
        self._attachable = attachable or NoCluster()
        self._networks = Networks(engine, self._attachable, self.find)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._restarts = Restarts(clock)
        self._names: set[str] = set()  # of containers that are being made
        self._held: set[str] = set()  # those that are being restarted by a user
        self._seen: dict[str, int] = {}  # when a container ended that was seen to
        self.attachments = Attachments(engine.runtime)
        self.execs = Execs(engine.runtime, clock, rng)

    # --- looking up ------------------------------------------------------------------------------------

    def find(self, name: str) -> Found:
        """A container by id, name, or a unique prefix of its id."""
        return find(self._runtime, name)

    @asynccontextmanager
    async def still(self, id: str) -> AsyncIterator[None]:
        """A container that does not run is not started meanwhile."""
        if self._runtime.get(id)[1].running:
            yield
            return
        async with self._locks[id]:
            yield

    def restarting(self, id: str) -> bool:
        """True from a container's end until the restart that follows it."""
        if self._restarts.waiting(id):
            return True
        config, state = self._runtime.get(id)
        record = record_of(config)
        if record is None or state.status is not ContainerStatus.EXITED or id in self._held:
            return False
        return state.finished_at != self._seen.get(id) and restarts(
            record.host.restart_policy, state, stopped_by_user=record.stopped_by_user
        )

    # --- making and removing ---------------------------------------------------------------------------

    async def create(self, name: str, request: CreateRequest) -> tuple[str, list[str]]:
        """Make a container; its id, and warnings."""
        if not request.image:
            raise InvalidArgument("no image is named")
        host = settings.normalized(
            request.host_config, unified_cgroups=self._engine.machine.cgroup_version == "2"
        )
        settings.check(request, host)
        check_policy(host.restart_policy, auto_remove=host.auto_remove)
        image = self._engine.images.get(request.image)
        completed = settings.completed(_settings_of(request), image.config)
        endpoints = networks.asked_for(request)
        networks.host_ports(completed, host)
        identifier = new_container_id(self._rng)
        name = self._take_name(name)
        try:
            points = mounts.resolve(
                identifier, completed, host, self._engine.volumes, lambda other: self.find(other)[0]
            )
            record = Record(
                settings=replace(completed, hostname=self._hostname(request, identifier)),
                host=replace(host, links=links.kept(host.links or (), name, self.find) or None),
                endpoints=endpoints,
            )
            config = settings.container_config(identifier, name, image, record, points, self._clock.now())
            try:
                await self._runtime.create(config)
            except BaseException:
                self._engine.volumes.release(identifier, remove_anonymous=True)
                raise
        finally:
            self._names.discard(name)
        return identifier, []

    def _hostname(self, request: CreateRequest, identifier: str) -> str:
        mode = request.host_config.network_mode
        if request.hostname or mode.startswith(networks.CONTAINER):
            return request.hostname
        if mode == "host" or request.host_config.uts_mode == "host":
            return self._engine.machine.hostname
        return identifier[:12]

    def _take_name(self, wanted: str) -> str:
        owners = {config.name: config.id for config, _ in self._runtime.list()}
        if not wanted:
            name = new_name(self._rng, owners.keys() | self._names)
        else:
            name = check_name(wanted)
            if name in owners or name in self._names:
                raise _taken(name, owners.get(name, "another one that is being made"))
        self._names.add(name)
        return name

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, its anonymous volumes with `volumes`; a running one only with `force`."""
        config, state = self.find(name)
        if not force and state.running:
            how = "paused" if state.status is ContainerStatus.PAUSED else "running"
            raise Conflict(
                f'cannot remove container "{config.name}": container is {how}: stop the container before '
                "removing or force remove"
            )
        if not force and self.restarting(config.id):
            raise Conflict(
                f'cannot remove container "{config.name}": container is restarting: stop the container '
                "before removing or force remove"
            )
        self._restarts.cancel(config.id)
        if state.running:
            await self._runtime.stop(config.id, 0)
        async with self._locks[config.id]:
            await self._remove(config, volumes=volumes)

    async def _remove(self, config: ContainerConfig, *, volumes: bool) -> None:
        if config.record:
            await self._networks.close(config.id)
        try:
            await self._runtime.remove(config.id, force=True)
        except NotFound:
            return  # by somebody else
        self.attachments.removed(config.id)
        self._engine.volumes.release(config.id, remove_anonymous=volumes)
        self._locks.pop(config.id, None)
        self._seen.pop(config.id, None)

    async def unlink(self, name: str) -> None:
        """Take a link from a container; `name` is CONTAINER/ALIAS."""
        owner, _, alias = name.strip("/").partition("/")
        config, _ = self.find(owner)
        record = _standalone(config)
        left = [text for text in record.host.links or () if links.parse(text).alias != alias]
        if len(left) == len(record.host.links or ()):
            raise NotFound(f"no such link: {name}")
        async with self._locks[config.id]:
            changed = replace(record, host=replace(record.host, links=left or None))
            await self._runtime.reconfigure(with_record(self._runtime.get(config.id)[0], changed))

    async def rename(self, name: str, new: str) -> None:
        """Give a container another name."""
        config, _ = self.find(name)
        if not new:
            raise InvalidArgument("Neither old nor new names may be empty")
        if check_name(new) == config.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        new = self._take_name(new)
        try:
            async with self._locks[config.id]:
                await self._runtime.reconfigure(replace(self._runtime.get(config.id)[0], name=new))
        finally:
            self._names.discard(new)

    async def update(self, name: str, request: UpdateRequest) -> None:
        """Change limits, of a running container at once, and the restart policy."""
        config, _ = self.find(name)
        record = _standalone(config)
        policy = request.restart_policy or record.host.restart_policy
        check_policy(policy, auto_remove=record.host.auto_remove)
        host = settings.changed_limits(replace(record.host, restart_policy=policy), request)
        settings.check_limits(host)
        async with self._locks[config.id]:
            wanted = settings.limits(host)
            if wanted != config.resources:
                await self._runtime.update_resources(config.id, wanted)
            changed = replace(record, host=host)
            await self._runtime.reconfigure(with_record(self._runtime.get(config.id)[0], changed))

    # --- starting and ending ---------------------------------------------------------------------------

    async def start(self, name: str) -> bool:
        """Start a container; False if it runs already."""
        config, state = self.find(name)
        _standalone(config)
        if state.status is ContainerStatus.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        if state.running:
            return False
        self._restarts.cancel(config.id)
        await self._start(config.id)
        return True

    async def _start(self, id: str, number: int = 0) -> None:
        async with self._locks[id]:
            config, state = self._runtime.get(id)
            if state.running:
                return
            record = _standalone(config)
            if record.stopped_by_user:
                record = replace(record, stopped_by_user=False)
            try:
                await self._networks.close(id)  # of an earlier life
                opened = await self._networks.open(config, record)
                await self._runtime.reconfigure(with_record(opened, record))
                loop = asyncio.get_running_loop()
                created = functools.partial(self.attachments.created, id, loop)
                await self._runtime.start_container(id, restarts=number, created=created)
            except BaseException as error:
                await asyncio.shield(self._failed_start(config, record))
                raise _start_refusal(error) from error

    async def _failed_start(self, config: ContainerConfig, record: Record) -> None:
        await self._networks.close(config.id)
        self.attachments.removed(config.id)
        if record.host.auto_remove:
            await self._remove(config, volumes=True)

    async def stop(self, name: str, grace: int | None = None) -> bool:
        """Stop a container within `grace` ns (None: as configured); False if it does not run."""
        config, state = self.find(name)
        waited = self._restarts.cancel(config.id)
        await self._note_stop(config)
        if not state.running:
            return waited
        await self._runtime.stop(config.id, config.stop_grace_ns if grace is None else grace)
        await self._settled(config)
        return True

    async def restart(self, name: str, grace: int | None = None) -> None:
        """Stop a container, and start it again. A task's is only stopped: its service starts another."""
        config, _ = self.find(name)
        record = record_of(config)
        if record is None:
            await self.stop(config.id, grace)
            return
        self._restarts.cancel(config.id)
        with self._holding(config.id):
            await self._runtime.stop(config.id, config.stop_grace_ns if grace is None else grace)
        await self._start(config.id)

    async def kill(self, name: str, number: int) -> None:
        """Send a signal. One that ends it is the user's will: no restart follows."""
        config, state = self.find(name)
        if not state.running:
            raise Conflict(f"cannot kill container: {name}: container {config.id} is not running")
        if number in (9, 15):
            await self._note_stop(config)
        await self._runtime.signal(config.id, number)
        if number == 9:
            await self._runtime.wait(config.id)
            await self._settled(config)

    async def _note_stop(self, config: ContainerConfig) -> None:
        """A restart policy must know who ended the container."""
        record = record_of(config)
        if record is None or record.stopped_by_user or record.host.restart_policy.name == "no":
            return
        async with self._locks[config.id]:
            changed = replace(record, stopped_by_user=True)
            await self._runtime.reconfigure(with_record(self._runtime.get(config.id)[0], changed))

    async def _settled(self, config: ContainerConfig) -> None:
        """Return when what an end entails is done: who stops a container may use its ports at once."""
        record = record_of(config)
        if record is not None and not record.host.auto_remove:
            await self._after_end(config.id)

    async def pause(self, name: str) -> None:
        """Freeze a container."""
        config, state = self.find(name)
        if state.status is ContainerStatus.PAUSED:
            raise Conflict(f"container {config.id} is already paused")
        if not state.running:
            raise Conflict(f"container {config.id} is not running")
        await self._runtime.pause(config.id)

    async def unpause(self, name: str) -> None:
        """Let a frozen container go on."""
        config, state = self.find(name)
        if state.status is not ContainerStatus.PAUSED:
            raise Conflict(f"Container {config.id} is not paused")
        await self._runtime.resume(config.id)

    # --- waiting ---------------------------------------------------------------------------------------

    def wait(self, name: str, condition: str) -> Coroutine[Any, Any, ContainerState]:
        """Wait for `not-running`, `next-exit` or `removed`; the last state. It watches from the call on."""
        config, state = self.find(name)
        return self._wait(config.id, state, condition, self._runtime.watch())

    async def _wait(
        self, id: str, first: ContainerState, condition: str, changes: AsyncIterator[Change]
    ) -> ContainerState:
        if condition == "not-running" and not first.running and not self.restarting(id):
            return first
        last = first
        async for changed, now in changes:
            if changed != id:
                continue
            if now is None:
                return last
            if condition == "next-exit" and now.finished_at != first.finished_at:
                return now
            if condition == "not-running" and not now.running:
                return now
            last = now
        return last

    # --- networks --------------------------------------------------------------------------------------

    def members(self, network_id: str) -> list[str]:
        """The containers that are configured to be in a network, running or not."""
        return self._networks.members(network_id)

    async def connect(self, container_id: str, network_id: str, wanted: EndpointSettings) -> None:
        """Put a container into a network: at once if it runs, else when it starts."""
        config, state = self.find(container_id)
        record = _standalone(config)
        if record.host.network_mode in ("host",) or record.host.network_mode.startswith(networks.CONTAINER):
            raise InvalidArgument(
                "container cannot be connected to other networks while it uses the network of the host or "
                "of another container"
            )
        network_id = await self._networks.resolve(network_id)
        if network_id in [await self._networks.resolve(name) for name in record.endpoints]:
            name = self._engine.network_name(network_id)
            raise Conflict(f"endpoint with name {config.name} already exists in network {name}")
        async with self._locks[config.id]:
            if state.running:
                given = wanted
                if self._attachable.knows(network_id):
                    given = await self._attachable.attach(config.id, network_id, wanted)
                await connect_running(self._engine, config.id, network_id, given)
            endpoints = {**record.endpoints, network_id: wanted}
            await self._keep_endpoints(config.id, record, endpoints)

    async def disconnect(self, container_id: str, network_id: str, *, force: bool) -> None:
        """Take a container out of a network."""
        config, state = self.find(container_id)
        record = _standalone(config)
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
            raise InvalidArgument(f"container {config.id} is not connected to network {name}")
        async with self._locks[config.id]:
            if state.running:
                await disconnect_running(self._engine, config.id, network_id)
                await self._attachable.detach(config.id, network_id)
            await self._keep_endpoints(config.id, record, endpoints)

    async def _keep_endpoints(self, id: str, record: Record, endpoints: dict[str, EndpointSettings]) -> None:
        changed = replace(record, endpoints=endpoints)
        await self._runtime.reconfigure(with_record(self._runtime.get(id)[0], changed))

    # --- what happens by itself ------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up what an earlier daemon left, then follow every container's end, until cancelled."""
        changes = self._runtime.watch()
        try:
            async with asyncio.TaskGroup() as group:
                for config, state in self._runtime.list():
                    if config.record:
                        group.create_task(_calm(config.id, self._take_up(config, state)))
                async for id, ended in changes:
                    if ended is not None and ended.status is ContainerStatus.EXITED:
                        group.create_task(_calm(id, self._after_end(id)))
        finally:
            await self._restarts.close()
            await self.execs.close()

    async def _take_up(self, config: ContainerConfig, state: ContainerState) -> None:
        if state.running:
            return
        await self._networks.close(config.id)
        record = _standalone(config)
        if record.host.auto_remove and state.status is not ContainerStatus.CREATED:
            await self._remove(config, volumes=True)
            return
        policy = record.host.restart_policy
        if restarts_with_daemon(policy, state, stopped_by_user=record.stopped_by_user):
            await self._start(config.id)

    async def _after_end(self, id: str) -> None:
        """Give the network back; then remove the container, start it again, or leave it."""
        async with self._locks[id]:
            try:
                config, state = self._runtime.get(id)
            except NotFound:
                return
            record = record_of(config)
            if record is None or state.running or self._restarts.waiting(id) or id in self._held:
                return
            await self._networks.close(id)
            if record.host.auto_remove:
                await self._remove(config, volumes=True)
                return
            if state.status is not ContainerStatus.EXITED or state.finished_at == self._seen.get(id):
                return
            self._seen[id] = state.finished_at
            if restarts(record.host.restart_policy, state, stopped_by_user=record.stopped_by_user):
                again = functools.partial(self._start, id, state.restarts + 1)
                self._restarts.schedule(id, state.finished_at - state.started_at, again)

    @contextmanager
    def _holding(self, id: str) -> Iterator[None]:
        """An end meanwhile is ours: nothing follows from it."""
        self._held.add(id)
        try:
            yield
        finally:
            self._held.discard(id)


async def _calm(id: str, work: Coroutine[Any, Any, None]) -> None:
    """One container's trouble is not the daemon's."""
    try:
        await work
    except (ShoalError, OSError) as error:
        log.error("seeing to a container failed", extra={"container": id, "error": str(error)})


def _settings_of(request: CreateRequest) -> Settings:
    return Settings(**{name: getattr(request, name) for name in Settings.__struct_fields__})


def _standalone(config: ContainerConfig) -> Record:
    record = record_of(config)
    if record is None:
        service = config.labels.get("com.docker.swarm.service.name", "a service")
        raise Conflict(
            f"container {config.name} is a task of {service}: it is started and changed by its service only "
            f"(`docker service update {service}`)"
        )
    return record


def _taken(name: str, owner: str) -> Conflict:
    return Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def _start_refusal(error: BaseException) -> BaseException:
    """The error of a failed start, in the words that the docker CLI makes its exit status of."""
    if isinstance(error, ContainerStartFailed):
        words = {127: "executable file not found in $PATH", 126: "permission denied"}
        if error.exit_code in words:
            return InvalidArgument(
                f"failed to create task for container: {words[error.exit_code]}: {error}: unknown"
            )
    return error
