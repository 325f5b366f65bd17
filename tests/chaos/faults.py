"""What goes wrong, from a seed: processes killed and stopped, cables cut, disks full, power lost."""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable

from cluster.errors import ShoalError
from tests.chaos.arena import Arena
from tests.chaos.history import History

CALM = (0.5, 3.0)
"""Seconds between two faults."""

_BREAKS = (ShoalError, OSError, RuntimeError, subprocess.SubprocessError)


class Faults:
    """Each method makes one fault, ends it, and returns; the cluster then mends itself."""

    def __init__(self, arena: Arena, rng: random.Random, history: History) -> None:
        self._arena = arena
        self._rng = rng
        self._history = history
        self._weights: dict[Callable[[], None], int] = {
            self.kill_manager: 6,
            self.kill_daemon: 2,
            self.pause_manager: 3,
            self.cut_off: 3,
            self.cut_one_way: 3,
            self.cut_pair: 2,
            self.fill_disk: 2,
            self.lose_power: 4,
            self.lose_all_power: 2,
        }
        self.counts: Counter[str] = Counter()

    @property
    def kinds(self) -> list[Callable[[], None]]:
        """One of each."""
        return list(self._weights)

    def run(self, until: float) -> None:
        """One fault after the other until that moment (of time.monotonic)."""
        kinds, weights = list(self._weights), list(self._weights.values())
        while time.monotonic() < until:
            self.one(self._rng.choices(kinds, weights)[0])
            self._sleep(*CALM)

    def one(self, fault: Callable[[], None]) -> None:
        """One fault, counted. A cluster that can't even be mended is a finding."""
        name = fault.__name__.replace("_", " ")
        self.counts[name] += 1
        try:
            fault()
        except _BREAKS as error:
            self._history.problems.append(f"{name} could not be ended: {type(error).__name__}: {error}")

    def heal(self) -> None:
        """End whatever a fault has left."""
        for host in self._arena.hosts:
            self._arena.free_disk(host)
            self._arena.signal(host, "manager", signal.SIGCONT)
        self._arena.place.heal()

    # --- processes ------------------------------------------------------------------------------------------

    def kill_manager(self) -> None:
        """kill -9; shoald starts it again."""
        host = self._host()
        self._tell(f"kill -9 of the manager of {host}")
        self._arena.signal(host, "manager", signal.SIGKILL)

    def kill_daemon(self) -> None:
        """kill -9 of shoald."""
        host = self._host()
        self._tell(f"kill -9 of shoald on {host}")
        self._arena.signal(host, "shoald", signal.SIGKILL)
        self._sleep(0.0, 2.0)
        self._arena.place.restart_daemon(host)

    def pause_manager(self) -> None:
        """SIGSTOP and SIGCONT."""
        host = self._host()
        self._tell(f"the manager of {host} is stopped")
        self._arena.signal(host, "manager", signal.SIGSTOP)
        self._sleep(0.2, 6.0)
        self._tell(f"the manager of {host} goes on")
        self._arena.signal(host, "manager", signal.SIGCONT)

    # --- cables ---------------------------------------------------------------------------------------------

    def cut_off(self) -> None:
        """A host reaches nobody, and nobody reaches it."""
        host = self._host()
        self._cut(f"{host} is cut off", lambda: self._arena.place.partition(host))

    def cut_one_way(self) -> None:
        """What a host sends gets lost, or what is sent to it."""
        host, place = self._host(), self._arena.place
        others = [other for other in self._arena.hosts if other != host]
        if self._rng.random() < 0.5:
            self._cut(f"{host} can't send", lambda: place.partition(host, others, one_way=True))
        else:
            self._cut(
                f"{host} can't receive",
                lambda: [place.partition(other, [host], one_way=True) for other in others],
            )

    def cut_pair(self) -> None:
        """Two hosts that reach all but each other; or one that reaches the other, and not back."""
        one, other = self._rng.sample(self._arena.hosts, 2)
        one_way = self._rng.random() < 0.5
        arrow = "→" if one_way else "↔"
        self._cut(
            f"{one} {arrow} {other} is cut",
            lambda: self._arena.place.partition(one, [other], one_way=one_way),
        )

    def _cut(self, what: str, cut: Callable[[], object]) -> None:
        self._tell(what)
        cut()
        self._while_it_lasts(1.0, 7.0)
        self._arena.place.heal()
        self._tell("healed")

    # --- disks and power ------------------------------------------------------------------------------------

    def fill_disk(self) -> None:
        """No byte is free for a manager's state, and then there is space again."""
        host = self._host()
        self._tell(f"the disk of {host} is full")
        try:
            self._arena.fill_disk(host)
            self._while_it_lasts(1.0, 5.0)
        finally:
            self._arena.free_disk(host)
        self._tell(f"the disk of {host} has space again")

    def lose_power(self) -> None:
        """One host, and only what was synced comes back."""
        self._power([self._host()])

    def lose_all_power(self) -> None:
        """All hosts at the same moment."""
        self._power(self._arena.hosts)

    def _power(self, hosts: list[str]) -> None:
        self._tell(f"power loss of {', '.join(hosts)}")
        self._arena.lose_power(*hosts)
        self._sleep(0.0, 2.0)
        self._arena.start(*hosts)
        self._tell("power is back")

    # --- how ------------------------------------------------------------------------------------------------

    def _while_it_lasts(self, shortest: float, longest: float) -> None:
        """Wait; sometimes a manager is killed meanwhile."""
        length = self._rng.uniform(shortest, longest)
        if self._rng.random() < 0.3:
            self._sleep(0.0, length)
            self.one(self.kill_manager)
        self._sleep(length / 2, length)

    def _host(self) -> str:
        return self._rng.choice(self._arena.hosts)

    def _sleep(self, shortest: float, longest: float) -> None:
        time.sleep(self._rng.uniform(shortest, longest))

    def _tell(self, what: str) -> None:
        self._history.faults.append(f"[{time.monotonic():.4f}] {what}")
