"""The life of standalone containers: started, stopped, ended by themselves, started again."""

import asyncio
import functools
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from msgspec.structs import replace

from cluster.errors import Conflict, InvalidArgument, NotFound, ShoalError
from cluster.seams import Clock, Random
from worker.containers.attach import Attachments
from worker.containers.attachable import Attachable, NoCluster
from worker.containers.execs import Execs
from worker.containers.lookup import Found, find
from worker.containers.networks import Networks
from worker.containers.record import Record, record_of, with_record
from worker.containers.restart import Restarts, restarts, restarts_with_daemon
from worker.engine import Engine
from worker.runtime.launch import ContainerStartFailed
from worker.runtime.model import ContainerConfig, ContainerState, ContainerStatus
from worker.runtime.runtime import Change
from worker.runtime.stopping import parse_signal

log = logging.getLogger("shoal.containers")

_KILL = 9


class Life:
    """The base of Containers. What ends a container takes a task's, too: its service replaces it."""

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

    # --- starting and ending ---------------------------------------------------------------------------

    async def start(self, name: str) -> bool:
        """Start a container; False if it runs already."""
        config, state = self.find(name)
        standalone(config)
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
            record = standalone(config)
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

    async def stop(self, name: str, grace: int | None = None, signal: str = "") -> bool:
        """Stop a container within `grace` ns (None: as configured); False if it does not run."""
        config, state = self.find(name)
        waited = self._restarts.cancel(config.id)
        await self._note_stop(config)
        if not state.running:
            return waited
        await self._runtime.stop(config.id, config.stop_grace_ns if grace is None else grace, signal)
        await self._settled(config)
        return True

    async def restart(self, name: str, grace: int | None = None, signal: str = "") -> None:
        """Stop a container, and start it again. A task's is only stopped: its service starts another."""
        config, _ = self.find(name)
        record = record_of(config)
        if record is None:
            await self.stop(config.id, grace, signal)
            return
        self._restarts.cancel(config.id)
        with self._holding(config.id):
            await self._runtime.stop(config.id, config.stop_grace_ns if grace is None else grace, signal)
            await self._start(config.id)
        self._engine.events.container("restart", config)

    async def kill(self, name: str, number: int) -> None:
        """Send a signal. One that ends it is the user's will: no restart follows."""
        config, state = self.find(name)
        if not state.running:
            raise Conflict(f"cannot kill container: {name}: container {config.id} is not running")
        if number in (_KILL, parse_signal(config.stop_signal or "SIGTERM")):
            await self._note_stop(config)
        await self._runtime.signal(config.id, number)
        if number == _KILL:
            await self._runtime.wait(config.id)
            await self._settled(config)

    async def _note_stop(self, config: ContainerConfig) -> None:
        """A restart policy must know who ended the container."""
        record = record_of(config)
        if record is None or record.host.restart_policy.name == "no":
            return
        async with self._locks[config.id]:
            config = self._runtime.get(config.id)[0]
            record = standalone(config)
            if not record.stopped_by_user:
                await self._runtime.reconfigure(with_record(config, replace(record, stopped_by_user=True)))

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

    # --- the end ---------------------------------------------------------------------------------------

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
        record = standalone(config)
        if record.host.auto_remove:  # also one that never ran: who made it has gone with the daemon
            await self._remove(config, volumes=True)
            return
        policy = record.host.restart_policy
        if restarts_with_daemon(policy, state, stopped_by_user=record.stopped_by_user):
            await self._start(config.id)

    async def _after_end(self, id: str) -> None:
        """Give the network back; then remove the container, start it again, or leave it."""
        if not self._is_standalone(id):
            return  # and no lock is made for it, which nobody would take away
        async with self._locks[id]:
            try:
                config, state = self._runtime.get(id)
            except NotFound:
                return
            if state.running or self._restarts.waiting(id) or id in self._held:
                return
            record = standalone(config)
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

    def _is_standalone(self, id: str) -> bool:
        try:
            return bool(self._runtime.get(id)[0].record)
        except NotFound:
            return False

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


def standalone(config: ContainerConfig) -> Record:
    record = record_of(config)
    if record is None:
        service = config.labels.get("com.docker.swarm.service.name", "a service")
        raise Conflict(
            f"container {config.name} is a task of {service}: it is started and changed by its service only "
            f"(`docker service update {service}`)"
        )
    return record


def _start_refusal(error: BaseException) -> BaseException:
    """The error of a failed start, in the words that the docker CLI makes its exit status of."""
    if isinstance(error, ContainerStartFailed):
        words = {127: "executable file not found in $PATH", 126: "permission denied"}
        if error.exit_code in words:
            return InvalidArgument(
                f"failed to create task for container: {words[error.exit_code]}: {error}: unknown"
            )
    return error
