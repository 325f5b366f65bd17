"""The write-ahead log gives back what was synced, or refuses."""

from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.seams import system_random
from manager.raft.disk import Disk, SystemDisk
from manager.raft.errors import FailStop, RaftCorrupt
from manager.raft.journal import Entry, Journal, Origin
from manager.raft.keyring import open_keyring
from tests.fakes.raft_world import SimDisk

DIRECTORY = Path("/raft")
ORIGIN = Origin("cluster", "node", {"node": "10.0.0.1:2377"})
State = tuple[list[Entry], int, str | None]


def fail_stop(reason: str) -> NoReturn:
    raise FailStop(reason)


def opened(disk: Disk, directory: Path = DIRECTORY, origin: Origin = ORIGIN) -> Journal:
    keyring = open_keyring(disk, directory, origin.cluster_id, origin.node_id, system_random())
    return Journal(disk, directory, origin, keyring, fail_stop, segment_bytes=400)


def log_files(disk: SimDisk) -> list[Path]:
    return sorted(path for path in disk.files if path.name.startswith("log."))


def last_segment(disk: SimDisk) -> bytearray:
    return disk.files[log_files(disk)[-1]]


def state(journal: Journal) -> State:
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.binary(max_size=300)),
        st.tuples(st.just("cut"), st.integers(0, 20)),
        st.tuples(st.just("compact"), st.integers(0, 20)),
        st.tuples(st.just("vote"), st.sampled_from([None, "a", "b"])),
        st.tuples(st.just("reset"), st.none()),
        st.tuples(st.just("sync"), st.none()),
    ),
    max_size=40,
)


def perform(journal: Journal, script: list[tuple[str, object]]) -> list[State]:
    """Run the operations; returns the states that were durable, oldest first."""
    durable = [state(journal)]
    journal.add(b"first", 1, 0)
    journal.sync()
    durable.append(state(journal))
    for operation, value in script:
        syncs = journal.syncs
        if operation == "add":
            assert isinstance(value, bytes)
            journal.add(value, journal.last_index() + 1, journal.getCurrentTerm())
        elif operation == "cut" and isinstance(value, int):
            journal.deleteEntriesFrom(max(1, len(journal) - value))
        elif operation == "compact" and isinstance(value, int):
            journal.deleteEntriesTo(min(value, len(journal) - 1))
        elif operation == "reset":
            last = journal.last_index() + 5
            journal.reset([(b"p", last, 0), (b"l", last + 1, 0)])
            durable.append(state(journal))
        elif operation == "vote":
            assert value is None or isinstance(value, str)
            journal.setCurrentTerm(journal.getCurrentTerm() + 1, value)
        else:
            journal.sync()
        if journal.syncs != syncs:
            durable.append(state(journal))
    return durable


def agrees(recovered: Journal, durable: State, first: int) -> bool:
    """Same from `first` on: what compaction dropped may still be there, in an old segment, or be gone."""
    (entries, *ballot), (expected, *expected_ballot) = state(recovered), durable
    kept, wanted = ([entry for entry in log if entry[1] >= first] for log in (entries, expected))
    return ballot == expected_ballot and kept == wanted


@given(operations)
@settings(deadline=None)
def test_power_loss_gives_back_what_was_synced(script: list[tuple[str, object]]) -> None:
    disk = SimDisk()
    journal = opened(disk)
    durable = perform(journal, script)
    disk.crash()
    assert agrees(opened(disk), durable[-1], journal.first_index())


@given(operations, st.data())
@settings(deadline=None, max_examples=120)
def test_a_cut_file_gives_back_a_prefix_or_refuses(
    script: list[tuple[str, object]], data: st.DataObject
) -> None:
    disk = SimDisk()
    journal = opened(disk)
    durable = perform(journal, script)
    disk.crash()
    content = last_segment(disk)
    length = data.draw(st.integers(0, len(content)))
    del content[length:]
    try:
        recovered = opened(disk)
    except RaftCorrupt:
        return
    assert any(agrees(recovered, earlier, journal.first_index()) for earlier in durable)


@given(operations, st.data())
@settings(deadline=None, max_examples=120)
def test_a_flipped_bit_gives_back_a_prefix_or_refuses(
    script: list[tuple[str, object]], data: st.DataObject
) -> None:
    disk = SimDisk()
    journal = opened(disk)
    durable = perform(journal, script)
    disk.crash()
    content = disk.files[data.draw(st.sampled_from(sorted(disk.files)))]
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        recovered = opened(disk)
    except RaftCorrupt:
        return
    assert any(agrees(recovered, earlier, journal.first_index()) for earlier in durable[-2:]), (
        "only the last frame may be dropped"
    )


@given(st.binary(max_size=2000), st.integers(0, 5))
@settings(deadline=None)
def test_garbage_behind_the_end_is_dropped(garbage: bytes, zeros: int) -> None:
    disk = SimDisk()
    durable = perform(opened(disk), [("add", b"x"), ("sync", None)])
    disk.crash()
    last_segment(disk).extend(garbage + bytes(zeros))
    recovered = opened(disk)
    assert agrees(recovered, durable[-1], 1)
    recovered.add(b"y", recovered.last_index() + 1, 0)
    recovered.sync()
    assert opened(disk).last_index() == recovered.last_index()


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "remove"])
def test_a_crash_inside_compaction_or_install_loses_nothing(operation: str) -> None:
    """Stock pysyncobj clears its journal first and adds the kept entries again."""
    disk = SimDisk()
    journal = opened(disk)
    for index in range(1, 101):
        journal.add(b"x" * 50, index, 1)
        journal.sync()
    disk.fail = lambda name, path: name == operation
    if operation == "remove":
        with pytest.raises(FailStop):
            journal.deleteEntriesTo(80)
    else:
        with pytest.raises(FailStop):
            journal.reset([(b"p", 200, 1), (b"l", 201, 1)])
    disk.fail = lambda name, path: False
    disk.crash()
    assert [index for _, index, _ in opened(disk)[:]] == list(range(1, 101))


def test_compaction_frees_the_disk() -> None:
    disk = SimDisk()
    journal = opened(disk)
    for index in range(1, 101):
        journal.add(b"x" * 50, index, 1)
        journal.sync()
    before = journal.size
    journal.deleteEntriesTo(90)
    assert journal.size < before / 4
    assert journal.size == sum(len(disk.files[path]) for path in log_files(disk))
    assert opened(disk)[-10:] == journal[:]


def test_a_missing_segment_is_noticed() -> None:
    disk = SimDisk()
    journal = opened(disk)
    for index in range(1, 101):
        journal.add(b"x" * 50, index, 1)
        journal.sync()
    del disk.files[log_files(disk)[3]]
    with pytest.raises(RaftCorrupt, match="damaged"):
        opened(disk)


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
        opened(disk, origin=Origin("cluster", "other", {}))


@pytest.mark.parametrize("kind", ["simulated", "system"])
def test_disks_behave_alike(kind: str, tmp_path: Path) -> None:
    """The simulated disk and the real one pass the same script."""
    disk: Disk = SimDisk() if kind == "simulated" else SystemDisk()
    directory = tmp_path / "raft"
    disk.make_directory(directory)
    assert disk.list_files(directory) == []
    journal = opened(disk, directory)
    for index in range(1, 31):
        journal.add(b"%d" % index, index, 1)
        journal.sync()
    journal.deleteEntriesFrom(28)
    journal.deleteEntriesTo(22)
    journal.close()
    names = disk.list_files(directory)
    assert names
    assert all(disk.exists(directory / name) for name in names)
    again = opened(disk, directory)
    assert [entry[1] for entry in again[-6:]] == list(range(23, 29))
    again.close()
    for name in names:
        disk.remove(directory / name)
        disk.remove(directory / name)
    assert disk.list_files(directory) == []
    with pytest.raises(FileNotFoundError):
        disk.open_read(directory / names[0])
