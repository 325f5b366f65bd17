"""A snapshot is written when there is something new to write, and not again."""

from pathlib import Path

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
