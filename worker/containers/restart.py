"""Restart policies: a pure decision, and the waiting before a restart. The rules are dockerd's."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cluster.errors import InvalidArgument, ShoalError
from cluster.seams import MILLISECOND, SECOND, Clock
from worker.containers.request import RestartPolicy
from worker.runtime.model import ContainerState

log = logging.getLogger("shoal.containers")

FIRST_DELAY = 100 * MILLISECOND
LONGEST_DELAY = 60 * SECOND
STEADY = 10 * SECOND
"""A container that ran this long begins anew with the shortest delay."""


def check_policy(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Refuse a policy that makes no sense, in dockerd's words."""
    name, count = policy.name, policy.maximum_retry_count
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    if name != "on-failure" and count:
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def restarts(policy: RestartPolicy, state: ContainerState, *, stopped_by_user: bool) -> bool:
    """Whether a container that has ended is started again."""
    match policy.name:
        case "always" | "unless-stopped":
            return not stopped_by_user
        case "on-failure":
            left = not policy.maximum_retry_count or state.restarts < policy.maximum_retry_count
            return state.exit_code != 0 and left and not stopped_by_user
    return False


def restarts_with_daemon(policy: RestartPolicy, state: ContainerState, *, stopped_by_user: bool) -> bool:
    """Whether a container that is found ended is started with the daemon: `always` also what was stopped."""
    started = state.started_at > 0
    return started and restarts(policy, state, stopped_by_user=stopped_by_user and policy.name != "always")


def next_delay(before: int, ran: int) -> int:
    """Nanoseconds to wait, after a life of `ran`; `before` is the last delay, 0 for none."""
    return FIRST_DELAY if not before or ran > STEADY else min(2 * before, LONGEST_DELAY)


class Restarts:
    """The containers that wait for their restart."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._delays: dict[str, int] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def waiting(self, id: str) -> bool:
        """True between an end and the restart that follows it."""
        return id in self._waiting

    def schedule(self, id: str, ran: int, restart: Callable[[], Awaitable[None]]) -> None:
        """Call `restart` after the delay that is due."""
        delay = self._delays[id] = next_delay(self._delays.get(id, 0), ran)
        self._waiting[id] = asyncio.create_task(self._later(id, delay, restart))

    async def _later(self, id: str, delay: int, restart: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._clock.sleep(delay)
            await restart()
        except (ShoalError, OSError) as error:
            log.warning("a restart failed", extra={"container": id, "error": str(error)})
        finally:
            if self._waiting.get(id) is asyncio.current_task():
                del self._waiting[id]

    def cancel(self, id: str) -> bool:
        """No restart after all, and the shortest delay next time; True if one was due."""
        self._delays.pop(id, None)
        task = self._waiting.pop(id, None)
        if task is None or task is asyncio.current_task():
            return False
        task.cancel()
        return True

    async def close(self) -> None:
        """Let all go."""
        tasks = list(self._waiting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
