"""Puts rules back that others took away: `nft flush ruleset`, a firewall's restart, a container's root.

The kernel tells of each change at once. Who takes them away again and again is answered ever later, so that
two who disagree do not keep the machine busy.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from netplane.errors import NetworkError
from netplane.netlink.nft_events import ALL, RulesWatch

log = logging.getLogger("shoal.netplane")

HOST = ""
"""Stands for the host's own tables among the sandboxes' ids."""

_TABLES = frozenset({"shoal", "shoal_encryption"})
"""Ours: in a sandbox there is the first alone."""
_SOONEST, _LATEST = 0.02, 30.0  # seconds until rules are put back
_LOOK = 1.0  # seconds until others' rules are looked at, so that who changes them all the time costs little
_CALM = 10.0  # after so many seconds without a change, the next one is the first again


@dataclass
class _Watched:
    watch: RulesWatch
    delay: float = _SOONEST
    restored: float = 0.0
    ours: bool = False  # our tables were changed, and are to be put back
    task: asyncio.Task[None] | None = None


class Watching:
    """The subscriptions of a node, one for the host and one for each sandbox that has rules."""

    def __init__(
        self, restore: Callable[[str], Awaitable[None]], look: Callable[[], Awaitable[None]]
    ) -> None:
        """Args: restore: puts back the rules of a sandbox or HOST; look: others changed rules of their own on
        the host, which may be in our way."""
        self._restore = restore
        self._look = look
        self._watched: dict[str, _Watched] = {}
        self._others = False  # others' rules on the host changed, and are to be looked at
        self._looking: asyncio.Task[None] | None = None

    def add(self, name: str, watch: RulesWatch) -> None:
        """Watch from now on; the watch is closed by `remove`."""
        self._watched[name] = _Watched(watch)
        asyncio.get_running_loop().add_reader(watch.fileno(), self._notice, name)

    def remove(self, name: str) -> None:
        """Watch no more; None there is no error."""
        watched = self._watched.pop(name, None)
        if watched is not None:
            asyncio.get_running_loop().remove_reader(watched.watch.fileno())
            watched.watch.close()
            if watched.task is not None:
                watched.task.cancel()

    async def close(self) -> None:
        """Watch nothing any more."""
        tasks = [each.task for each in self._watched.values() if each.task is not None]
        for name in list(self._watched):
            self.remove(name)
        if self._looking is not None:
            self._looking.cancel()
            tasks.append(self._looking)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _notice(self, name: str) -> None:
        watched = self._watched[name]
        changed = watched.watch.changed()
        watched.ours |= not changed.isdisjoint({*_TABLES, ALL})
        if watched.ours and (watched.task is None or watched.task.done()):
            watched.task = asyncio.create_task(self._answer(name, watched))
        self._others |= name == HOST and not changed <= _TABLES
        if self._others and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_soon())

    async def _look_soon(self) -> None:
        while self._others:
            await asyncio.sleep(_LOOK)
            self._others = False
            try:
                await self._look()
            except NetworkError as error:
                log.error("the host's other rules can't be read: %s", error)

    async def _answer(self, name: str, watched: _Watched) -> None:
        loop = asyncio.get_running_loop()
        while watched.ours:
            if loop.time() - watched.restored > _CALM:
                watched.delay = _SOONEST
            await asyncio.sleep(watched.delay)
            watched.ours = False
            watched.delay = min(watched.delay * 2, _LATEST)
            log.warning(
                "somebody changed Shoal's rules of %s: they are put back",
                f"sandbox {name}" if name else "this host",
            )
            try:
                await self._restore(name)
            except NetworkError as error:
                log.error("the rules of %s can't be put back: %s", name or "this host", error)
            watched.restored = loop.time()
