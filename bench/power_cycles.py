"""Bar 2: managers killed and hosts without power, over and over, under load: what was acknowledged stays."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bench.cluster import Options
from bench.report import Bar, percentile
from cluster.errors import ShoalError
from tests.chaos.arena import Arena, arena
from tests.chaos.run import KEPT, Result, Run, figure

CYCLES = 200
MANAGERS = 3
SEED = "power cycles"
KILL, ONE, ALL = "kill -9 of one manager", "power loss of one host", "power loss of all hosts"
SHARES = {KILL: 6, ONE: 3, ALL: 1}
"""Of ten cycles."""
UNDER_LOAD = (0.2, 0.8)
"""Seconds of undisturbed writes before each cycle: any moment of a write, a sync or a snapshot may be hit."""
PATIENCE = 60.0
QUICK_CYCLES = 10


class Cycles:
    """One cluster of three managers with clients at each."""

    def __init__(self, place: Arena, run: Run) -> None:
        self._arena = place
        self._run = run
        self._rng = random.Random(SEED)
        self.recoveries: dict[str, list[float]] = {kind: [] for kind in SHARES}
        """By kind of cycle: seconds from the fault to the first acknowledgement of a write begun after it."""

    def plan(self, count: int) -> list[str]:
        """The kinds of so many cycles: in every ten, each has its share, in any order."""
        ten = [kind for kind, share in SHARES.items() for _ in range(share)]
        return [kind for _ in range(-(-count // 10)) for kind in self._rng.sample(ten, 10)][:count]

    def one(self, kind: str) -> None:
        """Take away, give back at once, wait for a write. Raises TimeoutError, ShoalError."""
        kinds: dict[str, Callable[[], int]] = {KILL: self._kill, ONE: self._lose_one, ALL: self._lose_all}
        time.sleep(self._rng.uniform(*UNDER_LOAD))
        earlier = len(self._run.history.operations)
        moment = kinds[kind]()
        deadline = time.monotonic() + PATIENCE
        while (first := self._first_after(moment, earlier)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no write was acknowledged for {PATIENCE:.0f} s after a {kind}")
            time.sleep(0.02)
        self.recoveries[kind].append((first - moment) / 1e9)

    def _first_after(self, moment: int, earlier: int) -> int | None:
        """When a write that was begun after that moment was first acknowledged."""
        ends = [
            one.returned
            for one in self._run.history.operations[earlier:]
            if one.outcome == "ok" and one.action != "read" and one.invoked > moment
        ]
        return min((end for end in ends if end is not None), default=None)

    def _kill(self) -> int:
        running = [host for host in self._arena.hosts if self._arena.process(host, "manager")]
        self._arena.signal(self._rng.choice(running or self._arena.hosts), "manager", signal.SIGKILL)
        return time.monotonic_ns()

    def _lose_one(self) -> int:
        return self._power(self._rng.choice(self._arena.hosts))

    def _lose_all(self) -> int:
        return self._power(*self._arena.hosts)

    def _power(self, *hosts: str) -> int:
        self._arena.lose_power(*hosts)
        moment = time.monotonic_ns()
        self._arena.start(*hosts)
        return moment


def measure(count: int) -> tuple[Result, dict[str, list[float]]]:
    """So many cycles, and the verdict on all that the clients saw."""
    with arena(MANAGERS, log_level="warn") as place:
        run = Run(place, SEED, tasks=False)
        cycles = Cycles(place, run)
        begun = time.monotonic()
        run.start()
        for number, kind in enumerate(cycles.plan(count)):
            try:
                cycles.one(kind)
            except (TimeoutError, ShoalError) as error:
                run.history.problems.append(f"cycle {number}: {error}")
                break
        result = run.judge(time.monotonic() - begun)
        if result.violations:
            result.keep(place, Path(KEPT, "power-cycles"))
        return result, cycles.recoveries


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "11. Power cycles",
        f"{CYCLES} cycles of kill -9 and power loss of real managers under load: no acknowledged write is "
        "lost or done twice, and the clients' history is linearizable",
        ("", "cycles", "writes go on after: p50", "max"),
    )
    result, recoveries = measure(QUICK_CYCLES if options.quick else CYCLES)
    for kind, found in recoveries.items():
        if found:
            figures = (f"{percentile(found, 0.5):.2f} s", f"{max(found):.2f} s")
            bar.rows.append((kind, str(len(found)), *figures))
    count = sum(map(len, recoveries.values()))
    acknowledged = sum(one.outcome == "ok" and one.action != "read" for one in result.history.operations)
    bar.check(
        result.lost == 0, f"{acknowledged} writes acknowledged in {count} cycles, {figure(result.lost)} lost"
    )
    bar.check(result.duplicated == 0, f"{figure(result.duplicated)} duplicated")
    bar.check(
        not result.violations,
        f"{len(result.history.operations)} operations and {len(result.history.streams)} event streams "
        f"checked: {len(result.violations)} violations",
    )
    bar.notes.append(
        "Two clients at each of the 3 managers create, update, remove and read configs, secrets, services "
        "and nodes at random. A power loss takes everything that was not synced: a preloaded library keeps "
        "what was, and only that comes back. The time is from the fault to the first acknowledgement, by any "
        "manager, of a write begun after it; when all lose power that includes starting hosts and daemons."
    )
    bar.notes += result.violations[:20]
    return bar
