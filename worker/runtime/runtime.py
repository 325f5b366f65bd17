"""The seam between the node's decisions and its containers."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from worker.runtime.model import ContainerConfig, ContainerState, ExecResult, Health

Change = tuple[str, ContainerState | None]
"""A container's id and its new state; None once it is removed."""


class Runtime(Protocol):
    """Containers of one node. Unknown ids raise NotFound, a wrong moment Conflict."""

    async def start(self) -> None:
        """Adopt what is on disk: containers that still run, and those that ended meanwhile."""

    async def close(self) -> None:
        """Let go; containers keep running."""

    async def create(self, config: ContainerConfig) -> None:
        """Record a container. Its network namespace and mounts are needed only when it starts."""

    async def reconfigure(self, config: ContainerConfig) -> None:
        """Put a container's changed config in place of its present one; it counts from the next start."""

    async def start_container(
        self, id: str, *, restarts: int = 0, created: Callable[[], None] | None = None
    ) -> None:
        """Run it, also again after it ended unless it had files in memory, which go with its end.

        `restarts` is how often it was restarted; `created` is called when its output can be attached to, and
        it does not run yet. ContainerStartFailed when it can't.
        """

    async def signal(self, id: str, number: int) -> None:
        """Send a signal to its first process. Conflict when it is not running."""

    async def stop(self, id: str, grace_ns: int | None = None, signal: str = "") -> None:
        """Its stop signal (or another), and SIGKILL `grace_ns` later (None: as configured).

        Returns when it has ended.
        """

    async def wait(self, id: str) -> ContainerState:
        """The state once it is not running (or removed, then its last)."""

    async def remove(self, id: str, force: bool = False) -> None:
        """Forget it, with its writable layer and logs. Conflict when it runs, unless forced."""

    def get(self, id: str) -> tuple[ContainerConfig, ContainerState]:
        """Config and state."""

    def list(self) -> Sequence[tuple[ContainerConfig, ContainerState]]:
        """All containers, in order of creation."""

    def watch(self) -> AsyncIterator[Change]:
        """Changes from now on; several of one container may come as one, the latest."""

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
        """Run a command in a running container; past the timeout (0: none) it is killed."""

    def set_health(self, id: str, health: Health) -> None:
        """Record what the health checks found."""
