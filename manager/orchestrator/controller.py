"""The shape of every controller: a view and a watch from the same instant, then decide and write.

A subject is what one decision is about, such as a service. Decisions are pure; this loop feeds them with
views, writes their plans, wakes at the times they name, and remembers their sentences.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import ClassVar

from cluster.objects import StoreObject
from cluster.seams import MILLISECOND, Clock
from manager.orchestrator.plan import Plan
from manager.store import Event, Store, Transaction, View, Watch, restarting

LONGEST_PAUSE = 250 * MILLISECOND


class Controller:
    """Base of controllers. Leader only: `run` is cancelled when leadership is lost."""

    name: ClassVar[str]
    watches: ClassVar[tuple[type[StoreObject], ...]]

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.log = logging.getLogger(f"shoal.orchestrator.{self.name}")
        self._pending: set[str] = set()
        self._effort = 0  # ns that the last decisions took
        self._wakes: dict[str, int] = {}  # on the monotonic clock
        self._behind: dict[str, int] = {}
        self._notes: dict[str, dict[str, str]] = {}

    def subjects(self, view: View) -> set[str]:
        """All subjects, for a fresh start."""
        raise NotImplementedError

    def touched(self, view: View, event: Event) -> set[str]:
        """The subjects that an event may concern."""
        raise NotImplementedError

    def decide(self, view: View, subject: str) -> Plan:
        """A pure decision about one subject (the clock's present time is an argument of it)."""
        raise NotImplementedError

    def now(self, subject: str) -> int:
        """The wall clock, put forward as far as the subject's own times prove it to be behind.

        Clocks are set back, and a new leader's clock may be behind that of the one before. What is to be
        done 5 s after something that has happened is then not done an hour later.
        """
        return self.clock.now() + self._behind.get(subject, 0)

    def explain(self, subject: str) -> dict[str, str]:
        """Why the latest decision about a subject acted or did not, one sentence per part of it."""
        return dict(self._notes.get(subject, {}))

    async def run(self) -> None:
        """Decide and write until cancelled."""
        await restarting(self.name, self._session, self.clock)

    async def _session(self) -> None:
        view, watch = self.store.watch(*self.watches)
        with watch:
            self._pending = self.subjects(view)
            self._wakes.clear()
            self._behind.clear()
            self._notes.clear()
            await self._follow(watch)

    async def _follow(self, watch: Watch) -> None:
        while True:
            await self._tick()
            # Decisions on big services take a while: let as much time pass, so that events gather.
            await self.clock.sleep(min(self._effort, LONGEST_PAUSE))
            for events in await next_commits(watch, self.clock, min(self._wakes.values(), default=None)):
                view = self.store.view()
                for event in events:
                    self._pending |= self.touched(view, event)
            now = self.clock.monotonic()
            self._pending |= {subject for subject, at in self._wakes.items() if at <= now}

    async def _tick(self) -> None:
        """Decide about all pending subjects and write the outcome."""
        view, began = self.store.view(), self.clock.monotonic()
        writes: list[Callable[[Transaction], None]] = []
        for subject in sorted(self._pending):
            plan = self.decide(view, subject)
            self._wait(subject, plan.waits)
            if plan.notes:
                self._notes[subject] = plan.notes
            else:
                self._notes.pop(subject, None)
            for step in plan.steps:
                self.log.debug(
                    "decided", extra={"subject": subject, "step": [str(change) for change in step]}
                )
            writes.extend(plan.writes())
        self._effort = self.clock.monotonic() - began
        self._pending.clear()
        await self.store.batch(writes)

    def _wait(self, subject: str, waits: Sequence[tuple[int, int]]) -> None:
        if not waits:
            self._wakes.pop(subject, None)
            self._behind.pop(subject, None)
            return
        now = self.now(subject)
        behind = max(0, *(at - now - longest for at, longest in waits))
        if behind:
            self._behind[subject] = self._behind.get(subject, 0) + behind
        soonest = min(at for at, _ in waits) - now - behind
        self._wakes[subject] = self.clock.monotonic() + max(0, soonest)


async def next_commits(watch: Watch, clock: Clock, until: int | None) -> list[tuple[Event, ...]]:
    """The next commits of a watch, or none when the monotonic clock reaches `until` first.

    Raises WatchLagged; a closed watch has no next commit, which is an error here.
    """
    ready = watch.pending()
    if ready:
        return ready
    if until is None:
        return [await anext(watch), *watch.pending()]
    first = asyncio.ensure_future(anext(watch))
    alarm = asyncio.ensure_future(clock.sleep(until - clock.monotonic()))
    try:
        await asyncio.wait((first, alarm), return_when=asyncio.FIRST_COMPLETED)
        # A commit that arrives while `first` is cancelled stays in the watch.
        return [first.result(), *watch.pending()] if first.done() else []
    finally:
        for waiter in (first, alarm):
            waiter.cancel()
        await asyncio.gather(first, alarm, return_exceptions=True)
