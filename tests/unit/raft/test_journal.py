"""The write-ahead log gives back what was synced, or refuses."""

from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.raft.disk import Disk, SystemDisk
from manager.raft.errors import FailStop, RaftCorrupt
from manager.raft.journal import Entry, Journal, Origin
from tests.fakes.raft_world import SimDisk

PATH = Path("/raft/log")
ORIGIN = Origin("cluster", "node", {"node": "10.0.0.1:2377"})
State = tuple[list[Entry], int, str | None]


def fail_stop(reason: str) -> NoReturn:
    raise FailStop(reason)


def opened(disk: Disk, path: Path = PATH) -> Journal:
    return Journal(disk, path, ORIGIN, fail_stop)


def state(journal: Journal) -> State:
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.binary(max_size=300)),
        st.tuples(st.just("cut"), st.integers(0, 20)),
        st.tuples(st.just("compact"), st.integers(0, 20)),
        st.tuples(st.just("vote"), st.sampled_from([None, "a", "b"])),
        st.tuples(st.just("sync"), st.none()),
    ),
    max_size=40,
)


def perform(journal: Journal, script: list[tuple[str, object]]) -> list[State]:
    """Run the operations; returns the states that were durable, oldest first, since the last rewrite."""
    durable = [state(journal)]
    journal.add(b"first", 1, 0)
    journal.sync()
    durable.append(state(journal))
    for operation, value in script:
        syncs, first = journal.syncs, journal.first_index()
        if operation == "add":
            assert isinstance(value, bytes)
            journal.add(value, journal.last_index() + 1, journal.getCurrentTerm())
        elif operation == "cut" and isinstance(value, int):
            journal.deleteEntriesFrom(max(1, len(journal) - value))
        elif operation == "compact" and isinstance(value, int):
            journal.deleteEntriesTo(min(value, len(journal) - 1))
        elif operation == "vote":
            assert value is None or isinstance(value, str)
            journal.setCurrentTerm(journal.getCurrentTerm() + 1, value)
        else:
            journal.sync()
        if journal.syncs != syncs:
            durable.append(state(journal))
        elif journal.first_index() != first:
            durable = [state(journal)]  # The file was replaced: nothing older can come back.
    return durable


@given(operations)
@settings(deadline=None)
def test_power_loss_gives_back_what_was_synced(script: list[tuple[str, object]]) -> None:
    disk = SimDisk()
    durable = perform(opened(disk), script)
    disk.crash()
    assert state(opened(disk)) == durable[-1]


@given(operations, st.data())
@settings(deadline=None, max_examples=200)
def test_a_cut_file_gives_back_a_prefix_or_refuses(
    script: list[tuple[str, object]], data: st.DataObject
) -> None:
    disk = SimDisk()
    durable = perform(opened(disk), script)
    disk.crash()
    content = disk.files[PATH]
    length = data.draw(st.integers(0, len(content)))
    del content[length:]
    try:
        recovered = opened(disk)
    except RaftCorrupt:
        return
    assert state(recovered) in durable


@given(operations, st.data())
@settings(deadline=None, max_examples=200)
def test_a_flipped_bit_gives_back_a_prefix_or_refuses(
    script: list[tuple[str, object]], data: st.DataObject
) -> None:
    disk = SimDisk()
    durable = perform(opened(disk), script)
    disk.crash()
    content = disk.files[PATH]
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        recovered = opened(disk)
    except RaftCorrupt:
        return
    assert state(recovered) in durable[-2:], "only the last frame may be dropped"


@given(st.binary(max_size=2000), st.integers(0, 5))
@settings(deadline=None)
def test_garbage_behind_the_end_is_dropped(garbage: bytes, zeros: int) -> None:
    disk = SimDisk()
    durable = perform(opened(disk), [("add", b"x"), ("sync", None)])
    disk.crash()
    disk.files[PATH] += garbage + bytes(zeros)
    recovered = opened(disk)
    assert state(recovered) == durable[-1]
    recovered.add(b"y", recovered.last_index() + 1, 0)
    recovered.sync()
    assert opened(disk).last_index() == recovered.last_index()


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename"])
def test_a_crash_inside_compaction_loses_nothing(operation: str) -> None:
    """Stock pysyncobj clears its journal first and adds the kept entries again."""
    disk = SimDisk()
    journal = opened(disk)
    for index in range(1, 101):
        journal.add(b"x" * 50, index, 1)
    journal.sync()
    disk.fail = lambda name, path: name == operation
    with pytest.raises(FailStop):
        journal.deleteEntriesTo(80)
    disk.fail = lambda name, path: False
    disk.crash()
    assert [index for _, index, _ in opened(disk)[:]] == list(range(1, 101))


def test_a_failed_sync_is_never_retried() -> None:
    disk = SimDisk()
    journal = opened(disk)
    journal.add(b"x", 1, 1)
    disk.fail = lambda name, path: name == "sync"
    with pytest.raises(FailStop, match="can't be written"):
        journal.sync()


def test_a_vote_is_durable_before_it_is_sent() -> None:
    disk = SimDisk()
    opened(disk).setCurrentTerm(7, "b")
    disk.crash()
    again = opened(disk)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (7, "b")


def test_the_leader_syncs_its_own_copy_before_it_commits() -> None:
    disk = SimDisk()
    journal = opened(disk)
    journal.leading = True
    journal.add(b"x", 1, 1)
    journal.add(b"y", 2, 1)
    journal.setRaftCommitIndex(2)
    disk.crash()
    assert opened(disk).last_index() == 2


def test_another_node_s_directory_is_refused() -> None:
    disk = SimDisk()
    opened(disk).close()
    with pytest.raises(RaftCorrupt, match="belongs to node node of cluster cluster"):
        Journal(disk, PATH, Origin("cluster", "other", {}), fail_stop)


@pytest.mark.parametrize("kind", ["simulated", "system"])
def test_disks_behave_alike(kind: str, tmp_path: Path) -> None:
    """The simulated disk and the real one pass the same script."""
    disk: Disk = SimDisk() if kind == "simulated" else SystemDisk()
    path = tmp_path / "raft" / "log"
    disk.make_directory(path.parent)
    assert not disk.exists(path)
    journal = opened(disk, path)
    for index in range(1, 11):
        journal.add(b"%d" % index, index, 1)
    journal.sync()
    journal.deleteEntriesFrom(8)
    journal.deleteEntriesTo(2)
    journal.close()
    assert disk.exists(path)
    again = opened(disk, path)
    assert [entry[1] for entry in again[:]] == list(range(3, 9))
    disk.remove(path)
    disk.remove(path)
    assert not disk.exists(path)
    with pytest.raises(FileNotFoundError):
        disk.open_read(path)
