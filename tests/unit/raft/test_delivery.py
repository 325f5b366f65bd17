"""What comes from Raft takes turns with everything else on the owner's loop."""

import asyncio
from collections.abc import Iterator
from typing import NoReturn

from cluster.seams import MILLISECOND
from manager.raft.delivery import SLICE, Apply, Delivery, Restore
from tests.fakes.raft_world import SimClock


class Slow:
    """A state machine whose restore takes many steps of a millisecond."""

    def __init__(self, clock: SimClock, steps: int) -> None:
        self.clock, self.steps = clock, steps
        self.done: list[str] = []

    def apply(self, index: int, entry: bytes) -> object:
        self.done.append(f"applied {index}")
        return index

    def snapshot(self) -> Iterator[bytes]:
        return iter([])

    def restoring(self, index: int, chunks: Iterator[bytes]) -> Iterator[None]:
        for _ in range(self.steps):
            self.clock.time += MILLISECOND
            yield
        self.done.append(f"restored {index}")


def fail(reason: str) -> NoReturn:
    raise AssertionError(reason)


async def test_a_long_restore_leaves_the_loop_to_others_and_what_follows_waits() -> None:
    clock = SimClock()
    machine = Slow(clock, 200)
    delivery = Delivery(asyncio.get_running_loop(), machine, clock, fail)
    delivery.put(Restore(7, iter([])))
    delivery.put(Apply(8, b""))
    delivery.post()
    turns = 0
    while delivery.applied_index < 8:
        before = clock.monotonic()
        await asyncio.sleep(0)
        assert clock.monotonic() - before <= SLICE + 2 * MILLISECOND
        turns += 1
        assert turns < 1000
    assert machine.done == ["restored 7", "applied 8"]
    assert turns > 10


async def test_a_drain_finishes_what_has_begun() -> None:
    clock = SimClock()
    machine = Slow(clock, 50)
    delivery = Delivery(asyncio.get_running_loop(), machine, clock, fail)
    delivery.put(Restore(7, iter([])))
    delivery.post()
    await asyncio.sleep(0)
    assert machine.done == []
    delivery.drain()
    assert machine.done == ["restored 7"]
