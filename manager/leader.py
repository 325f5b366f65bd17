"""What runs only on the leading manager, started and stopped with its leadership."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

log = logging.getLogger("shoal.leader")


class Runnable(Protocol):
    """A controller: runs until it is cancelled."""

    async def run(self) -> None:
        """Work; returns never, raises when it can't go on."""


class Leadership:
    """Runs the leader's controllers while this manager leads, term by term.

    `controllers` makes them anew for each term, so that none carries over what it believed in an earlier
    one. `watch` calls back with (leads, term), now and at every change, and returns what ends that.
    """

    def __init__(
        self,
        watch: Callable[[Callable[[bool, int], None]], Callable[[], None]],
        controllers: Callable[[], Sequence[Runnable]],
    ) -> None:
        self._watch = watch
        self._controllers = controllers
        self._term: int | None = None  # the term that this manager leads in
        self._changed = asyncio.Event()

    @property
    def leading(self) -> bool:
        """True while this manager leads."""
        return self._term is not None

    async def run(self) -> None:
        """Run until cancelled. A controller's failure ends it, with that error."""
        unwatch = self._watch(self._leadership_changed)
        try:
            while True:
                term = self._term
                if term is not None:
                    await self.run_while_leading(term)
                elif not self._changed.is_set():
                    await self._changed.wait()
                self._changed.clear()
        finally:
            unwatch()

    async def run_while_leading(self, term: int) -> None:
        """Run the controllers until this term of leadership ends. Raises what one of them raises."""
        log.info("leading: starting the controllers", extra={"term": term})
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(controller.run(), name=type(controller).__name__)
                for controller in self._controllers()
            ]
            while self._term == term:
                self._changed.clear()
                await self._changed.wait()
            log.info("no longer leading: stopping the controllers", extra={"term": term})
            for task in running:
                task.cancel()

    def _leadership_changed(self, leads: bool, term: int) -> None:
        self._term = term if leads else None
        self._changed.set()
