"""A node sleeps until something is due, and wakes for it."""

from collections.abc import Callable

from manager.raft.alarm import SLACK, Alarm
from tests.fakes.raft_world import World


class Timers:
    """A loop's timers, rung by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.armed: list[tuple[float, Callable[[], None]]] = []
        self.set = 0

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def call_later(self, delay: float, callback: Callable[[], None]) -> "Timers.Handle":
        self.set += 1
        entry = (self.now + delay, callback)
        self.armed.append(entry)
        return Timers.Handle(self, entry)

    class Handle:
        def __init__(self, timers: "Timers", entry: tuple[float, Callable[[], None]]) -> None:
            self.timers, self.entry = timers, entry

        def cancel(self) -> None:
            if self.entry in self.timers.armed:
                self.timers.armed.remove(self.entry)

    def pass_to(self, moment: float) -> None:
        for entry in sorted(self.armed, key=lambda entry: entry[0]):
            if entry[0] <= moment:
                self.armed.remove(entry)
                self.now = entry[0]
                entry[1]()
        self.now = moment


def test_the_earliest_moment_counts_and_a_later_one_costs_nothing() -> None:
    timers, rung = Timers(), []
    alarm = Alarm(timers, lambda: timers.now, lambda: rung.append(timers.now))
    alarm.set(101.0)
    for later in range(100):
        alarm.set(101.0 + later)
    assert timers.set == 1
    alarm.set(100.5)
    timers.pass_to(100.5)
    assert rung == []  # Deadlines count once they have passed.
    timers.pass_to(102.0)
    assert rung == [100.5 + SLACK]
    alarm.set(103.0)
    alarm.cancel()
    timers.pass_to(110.0)
    assert len(rung) == 1


def test_an_idle_node_wakes_for_heartbeats_and_elections_only() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    leader, follower = world["A"].node, world["B"].node
    assert leader is not None
    assert follower is not None
    period = leader.conf.appendEntriesPeriod
    assert leader.now() <= leader.next_heartbeat() <= leader.now() + period
    assert leader._next_deadline() == leader.next_heartbeat()
    follower.postpone_election()
    assert follower._next_deadline() == follower.election_deadline() > follower.now() + 6 * period
    world.isolate("B")
    world.clock.time += 800_000_000
    world.step("B")  # Its deadline has passed, and nobody answers: it asks again when the canvass is over.
    assert follower._canvass is not None
    assert follower._next_deadline() == follower._canvass.until > follower.now()


def test_a_manager_alone_sleeps() -> None:
    world = World("A")
    world.elect("A")
    node = world["A"].node
    assert node is not None
    world.step("A")
    assert node._next_deadline() > node.now() + 0.9
