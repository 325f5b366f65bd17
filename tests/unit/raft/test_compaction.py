"""A snapshot is written when there is something new to write, and not again."""

from pathlib import Path

import pytest

from manager.raft.former import FormerSnapshots
from manager.raft.timing import RaftLimits
from tests.fakes.raft_world import World


def test_a_restarted_node_without_a_leader_does_not_write_its_snapshot_again_and_again() -> None:
    """What compaction cut from the head of the log is back after a restart, while its segment lasts: enough
    to compact once more, to where the snapshot is already."""
    world = World(limits=RaftLimits(keep_entries=0, compact_entries=20), segment_bytes=1_000_000)
    world.elect("A")
    for number in range(60):
        world["A"].propose(b"%d" % number)
        world.rounds(1)
    assert world["B"].disk.exists(Path("/r/snapshot"))
    for node_id in "ABC":
        world.crash(node_id)
    world["B"].start()  # alone: it finds no leader
    created: list[Path] = []
    disk = world["B"].disk
    create = disk.create

    def counted(path: Path) -> object:
        created.append(path)
        return create(path)

    disk.create = counted  # type: ignore[assignment, method-assign]
    for _ in range(50):
        world.clock.time += 1_000_000
        world.step("B")
    assert sum("snapshot" in path.name for path in created) <= 1


SNAPSHOT = Path("/r/snapshot")


def written(world: World, count: int) -> None:
    for number in range(count):
        world["A"].propose(b"%d" % number)
        world.rounds(1)


def former(world: World, node_id: str) -> list[int]:
    names = world[node_id].disk.list_files(Path("/r"))
    return sorted(int(name.rpartition(".")[2]) for name in names if name.removeprefix("snapshot.").isdigit())


def test_how_often_a_snapshot_is_taken_and_what_is_kept_can_be_changed() -> None:
    world = World(limits=RaftLimits(compact_entries=10_000), segment_bytes=1_000_000)
    world.elect("A")
    written(world, 60)
    assert not world["A"].disk.exists(SNAPSHOT)
    done: list[object] = []
    for node_id in "AB":
        node = world[node_id].node
        assert node is not None
        node.change_snapshots(20, 5, 2, lambda _, error: done.append(error))
    written(world, 100)
    assert done == [None, None]
    assert world["A"].disk.exists(SNAPSHOT)
    assert not world["C"].disk.exists(SNAPSHOT)
    assert len(former(world, "A")) == len(former(world, "B")) == 2
    first, second = former(world, "A")
    assert 15 <= second - first <= 30, (first, second)  # entries come while one is written
    node = world["A"].node
    assert node is not None
    node.change_snapshots(20, 5, 0, lambda _, error: done.append(error))
    assert former(world, "A") == []


@pytest.mark.parametrize("operation", ["rename", "remove"])
def test_a_crash_while_a_snapshot_is_replaced_leaves_one(operation: str) -> None:
    world = World(limits=RaftLimits(compact_entries=10_000), segment_bytes=1_000_000)
    disk = world["A"].disk
    disk.files.clear()
    for name, content in (("snapshot", b"old"), ("snapshot.new", b"new"), ("snapshot.7", b"older")):
        file = disk.create(Path("/r") / name)
        file.write(content)
        file.sync()
        file.close()
    snapshots = FormerSnapshots(disk, SNAPSHOT)
    snapshots.keep(1)
    calls = 0

    def fail_second(name: str, path: Path) -> bool:
        nonlocal calls
        calls += name == operation
        return calls == 2 if operation == "rename" else calls == 1

    disk.fail = fail_second
    with pytest.raises(OSError):
        snapshots.replace(Path("/r/snapshot.new"), 9, key_changed=False)
    disk.fail = lambda name, path: False
    again = FormerSnapshots(disk, SNAPSHOT)
    assert disk.exists(SNAPSHOT)
    again.keep(1)
    assert len(again.paths()) <= 1


def test_no_former_snapshot_lies_under_a_void_key() -> None:
    world = World(limits=RaftLimits(compact_entries=10_000), segment_bytes=1_000_000)
    disk = world["A"].disk
    for name in ("snapshot", "snapshot.new", "snapshot.7"):
        disk.create(Path("/r") / name).close()
    snapshots = FormerSnapshots(disk, SNAPSHOT)
    snapshots.keep(5)
    snapshots.replace(Path("/r/snapshot.new"), 9, key_changed=True)
    assert snapshots.paths() == []
