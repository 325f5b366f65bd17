"""What goes wrong, at random from the seed. Every fault ends by itself; `heal` ends all of them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from cluster.seams import MILLISECOND, SECOND
from tests.simulator.loop import Killed, Process
from tests.simulator.manager import RAFT

if TYPE_CHECKING:
    from tests.simulator.node import SimNode
    from tests.simulator.world import World

Undo = Callable[[], None]


class Faults:
    """Injects faults until cancelled. `kinds` may be narrowed, to find out what a failure needs."""

    def __init__(self, world: "World", kinds: frozenset[str] | None = None) -> None:
        self.world = world
        self.rng = Random(f"{world.seed} faults")
        self.kinds = {
            name.removeprefix("f_"): weight
            for name, weight in _WEIGHTS.items()
            if kinds is None or name.removeprefix("f_") in kinds
        }
        self.pace = 0.3
        self._undo: dict[int, tuple[str, Undo]] = {}
        self._serial = 0

    async def work(self) -> None:
        """One fault after the other; several may be under way at once."""
        names = sorted(self.kinds)
        weights = [self.kinds[name] for name in names]
        while names:
            await asyncio.sleep(self.rng.expovariate(self.pace))
            kind = self.rng.choices(names, weights)[0]
            getattr(self, f"f_{kind}")()

    def heal(self) -> None:
        """End all faults under way."""
        for serial in list(self._undo):
            self._end(serial)

    def _begin(self, what: str, seconds: float, undo: Undo) -> None:
        """A fault that lasts."""
        self.world.fault(f"{what} for {seconds:.1f} s")
        self._serial += 1
        self._undo[self._serial] = (what, undo)
        self.world.later(int(seconds * SECOND), self._end, self._serial)

    def _end(self, serial: int) -> None:
        what, undo = self._undo.pop(serial, ("", lambda: None))
        if what:
            self.world.fault(f"over: {what}")
            undo()

    # --- choosing -----------------------------------------------------------------------------------------

    def _node(self) -> "SimNode | None":
        nodes = [node for node in self.world.nodes if node.powered and node.node_id and not node.gone]
        return self.rng.choice(nodes) if nodes else None

    def _manager(self) -> "SimNode | None":
        nodes = [node for node in self.world.nodes if node.powered and node.core is not None]
        leader = self.world.leader()
        if leader in nodes and self.rng.random() < 0.5:
            return leader
        return self.rng.choice(nodes) if nodes else None

    def _seconds(self, most: float) -> float:
        """Mostly short, sometimes long."""
        return 0.05 + most * self.rng.random() ** 3

    def _process(self) -> "tuple[SimNode, Process] | None":
        node = self._manager() if self.rng.random() < 0.6 else self._node()
        if node is None:
            return None
        process = node.manager if node.core is not None and self.rng.random() < 0.7 else node.agent
        return (node, process) if process is not None and process.alive else None

    # --- processes and hosts ------------------------------------------------------------------------------

    def f_kill(self) -> None:
        found = self._process()
        if found is not None:
            self._kill(*found, "kill -9")

    def _kill(self, node: "SimNode", process: Process, why: str) -> None:
        self.world.fault(f"{why} of {process.name}")
        if process is node.manager:
            node.end_manager(why)
        elif process is node.agent:
            node.end_agent(why)

    def f_crash_at_write(self) -> None:
        """Die at one of the next disk operations: by a signal, or with the whole host."""
        found = self._process()
        if found is None:
            return
        node, victim = found
        power = self.rng.random() < 0.5
        left = self.rng.randrange(1, 12)

        def strike(operation: str, path: Path, process: Process) -> None:
            nonlocal left
            if process is not victim:
                return
            left -= 1
            if left > 0:
                return
            node.disk.on_operation = _nothing
            if power:
                self._power(node, f"at {operation} of {path.name}")
            else:
                self._kill(node, process, f"crash at {operation} of {path.name}")
            raise Killed

        node.disk.on_operation = strike

    def f_power(self) -> None:
        node = self._manager() if self.rng.random() < 0.6 else self._node()
        if node is not None:
            self._power(node, "")

    def _power(self, node: "SimNode", where: str) -> None:
        node.lose_power()
        self._begin(f"power loss of {node.name} {where}".rstrip(), self._seconds(15), node.boot)

    def f_power_of_all(self) -> None:
        self.world.fault("power loss of all")
        for node in self.world.nodes:
            if node.powered:
                self._power(node, "with all")

    def f_pause(self) -> None:
        found = self._process()
        if found is None or found[1].stopped:
            return
        process = found[1]
        process.stop()
        self.world.network.stopped(process)
        self._begin(f"pause of {process.name}", self._seconds(12), process.resume)

    def f_slow(self) -> None:
        found = self._process()
        if found is None:
            return
        process = found[1]
        process.pause = self.rng.choice((1, 5, 20)) * MILLISECOND

        def undo() -> None:
            process.pause = 0

        self._begin(f"slow {process.name}", self._seconds(10), undo)

    def f_clock_jump(self) -> None:
        node = self._node()
        if node is not None:
            jump = self.rng.choice((-3600, -30, -5, 5, 30, 3600)) * SECOND
            self.world.fault(f"clock of {node.name} jumps {jump // SECOND} s")
            node.clock.skew += jump

    # --- network ------------------------------------------------------------------------------------------

    def _cut(self, pairs: list[tuple[str, str]], what: str, seconds: float) -> None:
        network = self.world.network
        for source, target in pairs:
            network.cut(source, target)

        def undo() -> None:
            for source, target in pairs:
                network.heal(source, target)

        self._begin(what, seconds, undo)

    def f_partition(self) -> None:
        """A group of nodes on the other side of a broken switch."""
        nodes = [node for node in self.world.nodes if node.node_id]
        group = self.rng.sample(nodes, self.rng.randrange(1, max(2, len(nodes) // 2 + 1)))
        others = [node for node in nodes if node not in group]
        pairs = [(a.host, b.host) for a in group for b in others]
        pairs += [(b, a) for a, b in pairs]
        names = ",".join(sorted(node.name for node in group))
        self._cut(pairs, f"partition of {names}", self._seconds(25))

    def f_one_way(self) -> None:
        """Packets go one way only."""
        nodes = [node for node in self.world.nodes if node.node_id]
        if len(nodes) < 2:
            return
        one, other = self.rng.sample(nodes, 2)
        if self.rng.random() < 0.5:
            self._cut([(one.host, other.host)], f"{one.name}→{other.name} cut", self._seconds(20))
        else:
            pairs = [(one.host, node.host) for node in nodes if node is not one]
            if self.rng.random() < 0.5:
                pairs = [(b, a) for a, b in pairs]
                self._cut(pairs, f"nothing reaches {one.name}", self._seconds(20))
            else:
                self._cut(pairs, f"nothing leaves {one.name}", self._seconds(20))

    def f_flapping(self) -> None:
        """A link that comes and goes."""
        nodes = [node for node in self.world.nodes if node.node_id]
        if len(nodes) < 2:
            return
        one, other = self.rng.sample(nodes, 2)
        pairs = [(one.host, other.host), (other.host, one.host)]
        delay = 0.0
        for _ in range(self.rng.randrange(3, 9)):
            delay += self._seconds(3)
            seconds = self._seconds(2)
            what = f"flap of {one.name}–{other.name}"
            self.world.later(int(delay * SECOND), self._flap, pairs, what, seconds)
            delay += seconds

    def _flap(self, pairs: list[tuple[str, str]], what: str, seconds: float) -> None:
        if not self.world.healing:
            self._cut(pairs, what, seconds)

    def f_delay(self) -> None:
        nodes = [node for node in self.world.nodes if node.node_id]
        if len(nodes) < 2:
            return
        one, other = self.rng.sample(nodes, 2)
        most = self.rng.choice((20, 200, 1500)) * MILLISECOND
        delays = self.world.network.delays
        delays[one.host, other.host] = most

        def undo() -> None:
            delays.pop((one.host, other.host), None)

        what = f"delays up to {most // MILLISECOND} ms {one.name}→{other.name}"
        self._begin(what, self._seconds(20), undo)

    # --- disk ---------------------------------------------------------------------------------------------

    def f_full_disk(self) -> None:
        node = self._manager() if self.rng.random() < 0.7 else self._node()
        if node is None or node.disk.full:
            return
        node.disk.full = node.disk.failed = True
        node.disk.spare = 0

        def undo() -> None:
            node.disk.full = False

        self._begin(f"full disk of {node.name}", self._seconds(15), undo)

    def f_failed_sync(self) -> None:
        node = self._manager()
        if node is not None:
            self.world.fault(f"the next sync of {node.name} fails")
            node.disk.sync_fails, node.disk.failed = 1, True

    def f_bit_flip(self) -> None:
        """A bit of a manager's file flips while it is down."""
        node = self._manager()
        if node is None or not self.world.may_lose(node):
            return
        files = {path: inode for path, inode in node.disk.files.items() if path.parent == RAFT and inode.data}
        path = self.rng.choice(sorted(files))
        # The newest frame of the log can't be told from a torn one: docs/raft.md.
        most = len(files[path].data) // 2
        offset = self.rng.randrange(max(1, most))
        node.end_manager("before a bit flip")
        node.disk.flip(path, offset)
        node.disk.damaged = True
        self.world.fault(f"bit flip in {path.name} of {node.name} at {offset}")

    def f_wipe(self) -> None:
        """A manager's disk is replaced by an empty one."""
        node = self._manager()
        if node is not None and self.world.may_lose(node):
            node.end_manager("its disk is replaced")
            node.disk.wipe(RAFT)
            node.disk.damaged = True
            node.refused = "its disk is empty"
            self.world.fault(f"the disk of {node.name} is replaced")

    # --- workers ------------------------------------------------------------------------------------------

    def f_runtime_hangs(self) -> None:
        node = self._node()
        if node is not None:
            seconds = self._seconds(15)
            self.world.fault(f"the runtime of {node.name} hangs for {seconds:.1f} s")
            node.machine.hangs_until = self.world.loop.now + int(seconds * SECOND)

    def f_pulls_fail(self) -> None:
        node = self._node()
        if node is None:
            return
        machine = node.machine
        machine.pulls_fail = True
        machine.images.clear()

        def undo() -> None:
            machine.pulls_fail = False

        self._begin(f"pulls fail on {node.name}", self._seconds(15), undo)

    def f_slow_plane(self) -> None:
        node = self._node()
        if node is None:
            return
        machine = node.machine
        machine.plane_slow = self.rng.choice((100, 1000, 4000)) * MILLISECOND

        def undo() -> None:
            machine.plane_slow = 0

        self._begin(f"slow network plane on {node.name}", self._seconds(15), undo)


def _nothing(operation: str, path: Path, process: Process) -> None:
    pass


_WEIGHTS: dict[str, float] = {
    "f_kill": 3,
    "f_crash_at_write": 4,
    "f_power": 3,
    "f_power_of_all": 0.5,
    "f_pause": 3,
    "f_slow": 1,
    "f_clock_jump": 1,
    "f_partition": 3,
    "f_one_way": 2,
    "f_flapping": 1,
    "f_delay": 2,
    "f_full_disk": 1,
    "f_failed_sync": 0.7,
    "f_bit_flip": 0.5,
    "f_wipe": 0.5,
    "f_runtime_hangs": 1,
    "f_pulls_fail": 1,
    "f_slow_plane": 1,
}
KINDS = tuple(name.removeprefix("f_") for name in _WEIGHTS)
