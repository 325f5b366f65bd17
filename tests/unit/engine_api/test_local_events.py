"""The node's own events: which a change makes, and which pass a filter."""

import asyncio

import pytest
from msgspec.structs import replace

from cluster.event_ring import EventsLost, Logged
from tests.fakes.clock import ManualClock
from worker.api.events import event_filter
from worker.events import EngineEvents, transitions
from worker.runtime.model import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    Health,
    HealthStatus,
    MountKind,
    MountPoint,
)

CREATED = ContainerState()
RUNNING = ContainerState(status=ContainerStatus.RUNNING, started_at=5_000_000_000)
PAUSED = replace(RUNNING, status=ContainerStatus.PAUSED)
ENDED = replace(RUNNING, status=ContainerStatus.EXITED, exit_code=137, finished_at=9_000_000_000)
CONFIG = ContainerConfig(
    id="c1" * 32,
    name="web",
    image_name="shop/web:2",
    args=("run",),
    layers=(),
    labels={"a": "b"},
    mounts=(MountPoint(kind=MountKind.VOLUME, target="/data", volume_name="data"),),
)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (None, CREATED, ["create"]),
        (CREATED, RUNNING, ["start"]),
        (RUNNING, PAUSED, ["pause"]),
        (PAUSED, RUNNING, ["unpause"]),
        (RUNNING, ENDED, ["die"]),
        (RUNNING, replace(ENDED, oom_killed=True), ["oom", "die"]),
        (ENDED, replace(RUNNING, started_at=10_000_000_000), ["start"]),
        (RUNNING, replace(RUNNING, health=Health(status=HealthStatus.HEALTHY)), ["health_status: healthy"]),
        (RUNNING, replace(RUNNING, restarts=1), []),
        (ENDED, None, ["destroy"]),
    ],
)
def test_what_a_change_is_called(
    old: ContainerState | None, new: ContainerState | None, told: list[str]
) -> None:
    assert [action for action, _ in transitions(old, new)] == told


def test_an_end_tells_its_code_and_how_long_it_ran() -> None:
    assert transitions(RUNNING, ENDED) == [("die", {"exitCode": "137", "execDuration": "4"})]


async def _told(events: EngineEvents) -> list[Logged]:
    return [event async for event in events.read(0, follow=False)]


async def test_volumes_are_mounted_while_their_container_runs() -> None:
    events = EngineEvents(ManualClock())
    for old, new in ((None, CREATED), (CREATED, RUNNING), (RUNNING, ENDED)):
        events.container_changed(CONFIG, old, new)
    told = [(event.kind, event.action) for event in await _told(events)]
    assert told == [
        ("container", "create"),
        ("volume", "mount"),
        ("container", "start"),
        ("container", "die"),
        ("volume", "unmount"),
    ]


async def test_filters() -> None:
    events = EngineEvents(ManualClock())
    events.container("exec_create: sh -c true", CONFIG, {"execID": "e1"})
    events.tell("image", "pull", "shop/web:2", {"name": "shop/web"})
    events.tell("network", "connect", "n1", {"name": "shop", "container": CONFIG.id})
    container, image, network = await _told(events)

    def passing(**wanted: list[str]) -> list[Logged]:
        test = event_filter(wanted)
        return [event for event in (container, image, network) if test(event)]

    assert passing() == [container, image, network]
    assert passing(event=["exec_create"]) == [container]
    assert passing(event=["exec"]) == []
    assert passing(container=["web"]) == passing(container=["c1c1"]) == [container]
    assert passing(image=["shop/web"]) == passing(image=["shop/web:2"]) == [container, image]
    assert passing(network=["shop"], type=["network", "image"]) == [network]
    assert passing(label=["a=b"]) == [container]
    assert passing(scope=["swarm"]) == []
    assert passing(scope=["swarm", "local"], type=["image"]) == [image]
    assert passing(volume=["data"]) == []


async def test_memory_is_bounded_and_a_slow_reader_is_told() -> None:
    events = EngineEvents(ManualClock(), max_events=3)
    reader = events.read(events.end, follow=True)
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    for number in range(10):
        events.tell("volume", "create", str(number), {})
    with pytest.raises(EventsLost):
        await first
    assert [event.id async for event in events.read(events.position_at(0), follow=False)] == ["7", "8", "9"]
