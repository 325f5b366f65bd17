"""How an agent finds the leader, and how it leaves one that fell silent; on virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from cluster.messages import (
    AgentMessage,
    Assignments,
    Heartbeat,
    HeartbeatAck,
    Hello,
    ManagerAddress,
    ManagerMessage,
    Removed,
    SessionRedirect,
    Welcome,
)
from cluster.objects import NodeDescription
from cluster.seams import MILLISECOND, SECOND
from tests.fakes.clock import ManualClock, settle
from worker.agent.seek import Channel, SessionClosed
from worker.agent.session import Session

MANAGERS = tuple(ManagerAddress(name, name) for name in ("a", "b", "c"))


class FakeChannel:
    """One connection to a manager of the world's."""

    def __init__(self, world: "World", address: str) -> None:
        self.world = world
        self.address = address
        self.closed = False
        self.frames: asyncio.Queue[ManagerMessage] = asyncio.Queue()

    async def send(self, message: AgentMessage) -> None:
        if self.closed:
            raise SessionClosed("closed")
        if self.address in self.world.dark:
            return
        if isinstance(message, Heartbeat):
            self.world.beats.append(self.world.clock.monotonic())
            self.frames.put_nowait(HeartbeatAck(period=self.world.period))
        if isinstance(message, Hello):
            if self.world.removed:
                self.frames.put_nowait(Removed(message="removed"))
            elif self.world.leader == self.address:
                self.frames.put_nowait(Welcome(session_id=self.address, heartbeat_period=SECOND))
            else:
                named = self.world.named
                self.frames.put_nowait(SessionRedirect(leader=self.world.leader, managers=named))

    async def receive(self) -> ManagerMessage:
        message = await self.frames.get()
        if self.address in self.world.dark:
            await asyncio.Event().wait()
        return message

    async def close(self) -> None:
        self.closed = True
        if self.address in self.world.dark:
            await self.world.clock.sleep(SECOND)  # a peer that never answers the closing handshake


class World:
    """Three managers, an agent's handler and its connector."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.leader = "a"
        self.dark: set[str] = set()  # without power
        self.removed = False
        self.period = 0  # as heartbeats are answered
        self.beats: list[int] = []
        self.named = MANAGERS  # by those that do not lead
        self.channels: list[FakeChannel] = []
        self.sessions: list[tuple[str, int]] = []
        self.handled: list[ManagerMessage] = []
        self.handling = 0
        self.session = Session(self, self, MANAGERS, self.clock, random.Random(1))

    async def connect(self, address: str) -> FakeChannel:
        if address in self.dark:
            await self.clock.sleep(3 * SECOND)
            raise SessionClosed(f"can't reach manager {address}")
        await asyncio.sleep(0)
        channel = FakeChannel(self, address)
        self.channels.append(channel)
        return channel

    def hello(self) -> Hello:
        return Hello(description=NodeDescription(hostname="n"))

    async def opened(self, channel: Channel) -> None:
        assert isinstance(channel, FakeChannel)
        self.sessions.append((channel.address, self.clock.monotonic()))

    async def received(self, message: ManagerMessage) -> None:
        self.handled.append(message)
        await self.clock.sleep(self.handling)

    def managers_changed(self, managers: Sequence[ManagerAddress]) -> None:
        assert set(managers) >= set(MANAGERS)

    def open(self) -> list[str]:
        return [channel.address for channel in self.channels if not channel.closed]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    assert world.open() == []


async def start(world: World) -> "asyncio.Task[None]":
    running = asyncio.create_task(world.session.run())
    await settle()
    return running


async def stop(world: World, running: "asyncio.Task[None]") -> None:
    running.cancel()
    await settle()
    await world.clock.advance(5 * SECOND)
    assert running.done()


async def test_managers_without_power_do_not_hold_up_the_search(world: World) -> None:
    world.dark, world.leader = {"a", "b"}, "c"
    running = await start(world)
    await world.clock.advance(550 * MILLISECOND)
    assert [address for address, _ in world.sessions] == ["c"]
    await stop(world, running)


async def test_the_leader_may_change_the_heartbeat_of_an_open_session(world: World) -> None:
    running = await start(world)
    await world.clock.advance(3 * SECOND)
    world.period = 4 * SECOND
    await world.clock.advance(12 * SECOND)
    world.period = SECOND // 2
    await world.clock.advance(9 * SECOND)
    gaps = [later - earlier for earlier, later in zip(world.beats, world.beats[1:], strict=False)]
    # What an answer says counts from the beat after the next one on.
    assert gaps[:6] == [*[SECOND] * 4, *[4 * SECOND] * 2]
    assert gaps[-3:] == [SECOND // 2] * 3
    assert len(world.sessions) == 1
    await stop(world, running)


async def test_a_redirect_is_followed_at_once_and_an_answered_session_kept(world: World) -> None:
    running = await start(world)
    assert [address for address, _ in world.sessions] == ["a"]
    await world.clock.advance(60 * SECOND)
    assert len(world.sessions) == 1
    assert world.open() == ["a"]
    await stop(world, running)


@pytest.mark.parametrize("after", [0, 300, 900])
async def test_a_leader_without_power_is_left_for_the_next_one(world: World, after: int) -> None:
    running = await start(world)
    await world.clock.advance(5 * SECOND + after * MILLISECOND)
    lost = world.clock.monotonic()
    world.dark, world.leader = {"a"}, ""
    await world.clock.advance(700 * MILLISECOND)
    world.leader = "b"
    await world.clock.advance(SECOND)
    address, at = world.sessions[-1]
    assert (address, len(world.sessions)) == ("b", 2)
    assert at - lost < 1700 * MILLISECOND
    await world.clock.advance(SECOND)
    assert world.open() == ["b"]
    await stop(world, running)


async def test_a_leader_that_is_only_slow_keeps_its_sessions(world: World) -> None:
    running = await start(world)
    world.dark = {"a"}
    await world.clock.advance(4 * SECOND)
    assert len({channel.address for channel in world.channels}) == 3  # the others were asked, and name it
    world.dark = set()
    await world.clock.advance(4 * SECOND)
    assert len(world.sessions) == 1
    assert world.open() == ["a"]
    await stop(world, running)


async def test_while_a_message_is_worked_on_the_leader_is_not_taken_for_silent(world: World) -> None:
    running = await start(world)
    world.handling = 5 * SECOND
    world.channels[-1].frames.put_nowait(Assignments(sequence=1))
    await world.clock.advance(4 * SECOND)
    assert len(world.channels) == len([c for c in world.channels if c.closed]) + 1
    asked = len(world.channels)
    await world.clock.advance(20 * SECOND)
    assert len(world.channels) == asked
    await stop(world, running)


async def test_without_a_leader_it_asks_about_every_second(world: World) -> None:
    world.leader = ""
    running = await start(world)
    await world.clock.advance(20 * SECOND)
    world.leader = "b"
    elected = world.clock.monotonic()
    await world.clock.advance(1600 * MILLISECOND)
    assert [address for address, _ in world.sessions] == ["b"]
    assert world.sessions[0][1] - elected <= 1500 * MILLISECOND
    await stop(world, running)


async def test_a_node_that_was_removed_while_away_is_told_so(world: World) -> None:
    world.removed = True
    running = await start(world)
    assert world.handled == [Removed(message="removed")]
    await stop(world, running)


async def test_a_manager_that_is_behind_makes_the_agent_forget_no_other(world: World) -> None:
    """All that it names may be gone since, and what the agent forgot would never be found again."""
    world.named, world.leader = (ManagerAddress("gone", "gone"),), ""
    world.dark = {"gone"}
    running = await start(world)
    await world.clock.advance(20 * SECOND)
    world.leader = "c"
    await world.clock.advance(10 * SECOND)
    assert [address for address, _ in world.sessions] == ["c"]
    await stop(world, running)
