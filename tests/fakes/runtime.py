"""A runtime without containers: for the agent's tests and the simulator, on any clock.

What a container does is said by its arguments, as the conformance suite uses them:

    sleep SECONDS            runs that long, deaf to SIGTERM as any first process without a handler
    sh -c "exit N"           ends at once with N
    sh -c "trap 'exit N' TERM; …"   ends with N at SIGTERM, else runs on
    anything else            can't be started (127), as a command that the image lacks
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from cluster.errors import Conflict, InvalidArgument
from cluster.seams import SECOND, Clock
from worker.runtime.launch import ContainerStartFailed, check_mounts
from worker.runtime.model import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    ExecResult,
    Health,
    HealthStatus,
    LogConfig,
    ResourceLimits,
)
from worker.runtime.runtime import Change
from worker.runtime.table import ContainerTable, Entry

ExecScript = Callable[[str, Sequence[str]], ExecResult]
_SIGKILL, _SIGTERM = 9, 15


class FakeRuntime:
    """Containers in memory. `start_latency` ns pass in each start; `exec_script` answers execs."""

    def __init__(
        self, clock: Clock, *, start_latency: int = 0, exec_script: ExecScript | None = None
    ) -> None:
        self._clock = clock
        self._start_latency = start_latency
        self._table = ContainerTable()
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._next_pid = 1000
        self.exec_script = exec_script or (lambda id, argv: ExecResult(exit_code=0, output=b""))
        self.default_log = LogConfig()
        self.fail_starts: dict[str, str] = {}  # container id → message: the next start fails

    async def start(self) -> None:
        """Nothing to adopt."""

    async def close(self) -> None:
        """End the simulated lives (the containers are only objects)."""
        for life in list(self._lives.values()):
            life.cancel()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)

    async def create(self, config: ContainerConfig) -> None:
        """Record a container."""
        if self._table.known(config.id):
            raise Conflict(f"container {config.id[:12]} exists already")
        if not config.args:
            raise InvalidArgument("no command specified")
        check_mounts(config)
        self._table.add(config, ContainerState())

    async def reconfigure(self, config: ContainerConfig) -> None:
        """Another config."""
        self._table.find(config.id).config = config

    async def update_resources(self, id: str, resources: ResourceLimits) -> None:
        """Other limits."""
        await self.reconfigure(msgspec.structs.replace(self._table.find(id).config, resources=resources))

    async def start_container(
        self, id: str, *, restarts: int = 0, created: Callable[[], None] | None = None
    ) -> None:
        """Let it live as its arguments say."""
        entry = self._table.find(id)
        async with entry.lock:
            if entry.state.running:
                return
            await self._clock.sleep(self._start_latency)
            message = self.fail_starts.pop(id, "")
            span = None if message else _life(entry.config.args)
            if span is None:
                error = ContainerStartFailed(
                    message or "failed to start container: executable file not found", 127
                )
                failed = ContainerState(error=str(error), exit_code=error.exit_code, restarts=restarts)
                self._table.update(entry, failed)
                raise error
            if created is not None:
                created()
            self._next_pid += 1
            health = HealthStatus.STARTING if entry.config.healthcheck else HealthStatus.NONE
            self._table.update(
                entry,
                ContainerState(
                    status=ContainerStatus.RUNNING,
                    pid=self._next_pid,
                    started_at=self._clock.now(),
                    health=Health(status=health),
                    restarts=restarts,
                ),
            )
            duration, code = span
            self._lives[id] = asyncio.create_task(self._live(entry, duration, code))

    async def _live(self, entry: Entry, duration: int, code: int) -> None:
        await self._clock.sleep(duration)
        self.end(entry.config.id, code)

    def end(self, id: str, code: int, *, oom_killed: bool = False) -> None:
        """Tests: the container ends now."""
        entry = self._table.find(id)
        if not entry.state.running:
            return
        life = self._lives.pop(id, None)
        if life is not None and life is not asyncio.current_task():
            life.cancel()
        state = msgspec.structs.replace(
            entry.state,
            status=ContainerStatus.EXITED,
            pid=0,
            exit_code=code,
            oom_killed=oom_killed,
            finished_at=self._clock.now(),
        )
        self._table.update(entry, state)

    async def signal(self, id: str, number: int) -> None:
        """SIGKILL ends it; SIGTERM if it has a handler."""
        entry = self._table.find(id)
        if not entry.state.running:
            raise Conflict(f"container {id[:12]} is not running")
        if number == _SIGKILL:
            self.end(id, 128 + number)
        trapped = _trap(entry.config.args)
        if number == _SIGTERM and trapped is not None:
            self.end(id, trapped)

    async def stop(self, id: str, grace_ns: int | None = None, signal: str = "") -> None:
        """SIGTERM, and SIGKILL after the grace period."""
        entry = self._table.find(id)
        if not entry.state.running:
            return
        grace = entry.config.stop_grace_ns if grace_ns is None else grace_ns
        if grace:
            await self.signal(id, _SIGTERM)
            bound = asyncio.ensure_future(self._clock.sleep(grace))
            ended = asyncio.ensure_future(self._table.ended(entry))
            await asyncio.wait({bound, ended}, return_when=asyncio.FIRST_COMPLETED)
            bound.cancel()
            ended.cancel()
        self.end(id, 128 + _SIGKILL)

    async def wait(self, id: str) -> ContainerState:
        """The state once it does not run."""
        return await self._table.ended(self._table.find(id))

    async def remove(self, id: str, force: bool = False) -> None:
        """Forget it."""
        entry = self._table.find(id)
        if entry.state.running:
            if not force:
                raise Conflict(f"cannot remove container {id[:12]}: container is running: stop it first")
            self.end(id, 128 + _SIGKILL)
        self._table.drop(entry)

    def get(self, id: str) -> tuple[ContainerConfig, ContainerState]:
        """Config and state."""
        entry = self._table.find(id)
        return entry.config, entry.state

    def list(self) -> Sequence[tuple[ContainerConfig, ContainerState]]:
        """All containers, oldest first."""
        return [(entry.config, entry.state) for entry in self._table]

    def watch(self) -> AsyncIterator[Change]:
        """Changes from now on."""
        return self._table.watch()

    async def exec(
        self,
        id: str,
        argv: Sequence[str],
        *,
        timeout_ns: int = 0,
        env: Sequence[str] = (),
        user: str = "",
        cwd: str = "",
        output_limit: int = 1 << 20,
    ) -> ExecResult:
        """What `exec_script` says; `sh -c "exit N"` and `sleep` (with a timeout) by themselves."""
        entry = self._table.find(id)
        if entry.state.status is not ContainerStatus.RUNNING:
            raise Conflict(f"container {id[:12]} is not running")
        span = _life(argv)
        if span is None:
            return self.exec_script(id, argv)
        duration, code = span
        if timeout_ns and duration > timeout_ns:
            await self._clock.sleep(timeout_ns)
            return ExecResult(exit_code=-1, output=b"", timed_out=True)
        await self._clock.sleep(duration)
        return ExecResult(exit_code=code, output=b"")

    def set_health(self, id: str, health: Health) -> None:
        """Record health."""
        entry = self._table.find(id)
        self._table.update(entry, msgspec.structs.replace(entry.state, health=health))


def _trap(args: Sequence[str]) -> int | None:
    found = re.match(r"trap 'exit (\d+)' TERM", args[2]) if len(args) > 2 else None
    return int(found[1]) if found else None


def _life(args: Sequence[str]) -> tuple[int, int] | None:
    """How long (ns) and to what exit code a command runs; None: there is no such command."""
    if args[0] == "sleep":
        return int(float(args[1]) * SECOND), 0
    if list(args[:2]) == ["sh", "-c"]:
        if _trap(args) is not None:
            return 1 << 60, 0
        found = re.search(r"exit (\d+)", args[2])
        return 0, int(found[1]) if found else 0
    return None
