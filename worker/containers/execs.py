"""Commands that users run in containers (`docker exec`): made, started once, looked at afterwards."""

import asyncio
from dataclasses import dataclass, field

import msgspec

from cluster.errors import Conflict, InvalidArgument, NotFound
from cluster.ids import new_container_id
from cluster.seams import SECOND, Clock, Random
from worker.runtime.model import ContainerConfig, ContainerState, ContainerStatus
from worker.runtime.oci import OCIRuntime
from worker.runtime.session import Session

KEPT = 300 * SECOND
"""How long an exec can be inspected after its end."""
FAILED = 126


class ExecRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of POST /containers/{id}/exec."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: list[int] | None = None


@dataclass
class Exec:
    """One exec. `exit_code` None: it has not ended."""

    id: str
    container_id: str
    request: ExecRequest
    session: Session | None = None
    exit_code: int | None = None
    ended_at: int = 0
    watching: "asyncio.Task[None] | None" = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        """True while its process is there."""
        return self.session is not None and self.exit_code is None


class Execs:
    """The execs of this daemon's life; a restart forgets them."""

    def __init__(self, runtime: OCIRuntime, clock: Clock, rng: Random) -> None:
        self._runtime, self._clock, self._rng = runtime, clock, rng
        self._execs: dict[str, Exec] = {}

    def create(self, config: ContainerConfig, state: ContainerState, request: ExecRequest) -> str:
        """A new exec's id."""
        _must_run(config, state)
        if not request.cmd:
            raise InvalidArgument("No exec command specified")
        self._forget_old()
        made = Exec(new_container_id(self._rng), config.id, request)
        self._execs[made.id] = made
        return made.id

    def find(self, id: str) -> Exec:
        """The exec; NotFound."""
        found = self._execs.get(id)
        if found is None:
            matching = [each for each in self._execs.values() if id and each.id.startswith(id)]
            if len(matching) != 1:
                raise NotFound(f"No such exec instance: {id}")
            found = matching[0]
        return found

    def of(self, container_id: str) -> list[str]:
        """The execs that a container has, running or about to."""
        return [
            each.id
            for each in self._execs.values()
            if each.container_id == container_id and each.exit_code is None
        ]

    def start(self, id: str, *, stdin: bool, size: tuple[int, int] | None) -> Session:
        """Run it. Conflict when it has run, or its container does not."""
        found = self.find(id)
        if found.session is not None:
            word = "already running" if found.running else "has already run"
            raise Conflict(f"Error: Exec command {id} {word}")
        config, state = self._runtime.get(found.container_id)
        _must_run(config, state)
        request = found.request
        session = self._runtime.open_exec(
            found.container_id,
            [request.cmd] if isinstance(request.cmd, str) else request.cmd or [],
            env=request.env or (),
            user=request.user,
            cwd=request.working_dir,
            tty=request.tty,
            stdin=stdin,
            privileged=request.privileged,
        )
        if size is not None and all(size):
            session.resize(*size)
        found.session = session
        found.watching = asyncio.create_task(self._watch(found, session))
        return session

    def resize(self, id: str, height: int, width: int) -> None:
        """Set the terminal's size."""
        found = self.find(id)
        if not found.running or found.session is None:
            raise Conflict(f"exec {id} is not running")
        found.session.resize(height, width)

    async def _watch(self, found: Exec, session: Session) -> None:
        found.exit_code = await asyncio.shield(session.exit_code)
        found.ended_at = self._clock.now()

    def _forget_old(self) -> None:
        now = self._clock.now()
        containers = {config.id for config, _ in self._runtime.list()}
        for each in list(self._execs.values()):
            old = each.exit_code is not None and now - each.ended_at > KEPT
            never = each.session is None and each.container_id not in containers
            if old or never:
                del self._execs[each.id]

    async def close(self) -> None:
        """Let go of those that run: they go on without anybody at their streams."""
        tasks = [each.watching for each in self._execs.values() if each.watching is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._execs.values():
            if each.session is not None:
                await each.session.release()


def _must_run(config: ContainerConfig, state: ContainerState) -> None:
    if state.status is ContainerStatus.PAUSED:
        raise Conflict(f"container {config.id} is paused, unpause the container before exec")
    if not state.running:
        raise Conflict(f"container {config.id} is not running")
