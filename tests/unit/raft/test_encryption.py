"""Raft's files are encrypted, with keys that can be changed at any time and whatever breaks meanwhile."""

import hashlib
import logging
import random
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.seams import system_random
from manager.keys.locks import UNLOCKED, Lock
from manager.keys.sealing import WrongKey, new_key
from manager.raft.errors import FailStop, RaftCorrupt
from manager.raft.frames import HEADER_SIZE, PLAIN_FILE, encode_frame, parse_head, payload_of
from manager.raft.journal import Journal, Origin, _entry_record
from manager.raft.keyring import KEYRING, Keyring, open_keyring
from manager.raft.node import RaftNode
from tests.fakes.raft_fuzz import Fuzz
from tests.fakes.raft_world import PowerLoss, SimDisk, World

RANDOM = random.Random(3)
DIRECTORY = Path("/r")
KEYRING_PATH = DIRECTORY / KEYRING
ORIGIN = Origin("c", "n", {"n": "10.0.0.1:2377"})
FIRST, SECOND, THIRD = (Lock(new_key(RANDOM), version) for version in (1, 2, 3))
SECRET = b"a secret that nobody may read"


def fail_stop(reason: str) -> NoReturn:
    raise FailStop(reason)


def keyring(disk: SimDisk, *locks: Lock, node_id: str = "n") -> Keyring:
    return open_keyring(disk, DIRECTORY, "c", node_id, RANDOM, locks)


def journal(disk: SimDisk, *locks: Lock, segment_bytes: int = 400) -> Journal:
    return Journal(disk, DIRECTORY, ORIGIN, keyring(disk, *locks), fail_stop, segment_bytes)


def filled(disk: SimDisk, entries: int = 30, segment_bytes: int = 400) -> Journal:
    made = journal(disk, segment_bytes=segment_bytes)
    for index in range(1, entries + 1):
        made.add(SECRET, index, 1)
        made.sync()
    return made


def readable(disk: SimDisk, words: bytes = SECRET) -> list[str]:
    """The files with these words in them."""
    return [path.name for path, content in disk.files.items() if words in content]


# --- the keyring ------------------------------------------------------------------------------------------


def test_without_autolock_the_keyring_opens_by_itself() -> None:
    disk = SimDisk()
    assert keyring(disk).current == keyring(disk).current
    assert keyring(disk).lock == UNLOCKED


def test_with_autolock_only_the_unlock_key_opens_it() -> None:
    disk = SimDisk()
    made = keyring(disk, FIRST)
    assert FIRST.key is not None
    for hidden in (FIRST.key, made.current.key):
        assert not readable(disk, hidden)
    for locks in ((), (UNLOCKED,), (SECOND,)):
        with pytest.raises(WrongKey):
            keyring(disk, *locks)
    opened = keyring(disk, SECOND, FIRST)
    assert opened.current == made.current
    assert opened.lock == FIRST


def test_a_new_keyring_is_under_the_newest_lock() -> None:
    assert keyring(SimDisk(), UNLOCKED, SECOND, FIRST).lock == SECOND


def test_rotation_keeps_old_keys_until_nobody_uses_them() -> None:
    disk = SimDisk()
    ring = keyring(disk)
    old = ring.current
    ring.rotate(FIRST)
    assert ring.current != old
    ring.used("log", frozenset((old.id, ring.current.id)))
    ring.used("snapshots", frozenset())
    assert keyring(disk, FIRST).ids == {old.id, ring.current.id}
    ring.used("log", frozenset((ring.current.id,)))
    assert keyring(disk, FIRST).ids == {ring.current.id}
    ring.rotate(Lock(None, 9))
    assert keyring(disk).lock == Lock(None, 9)


@given(st.data())
@settings(deadline=None)
def test_a_damaged_keyring_is_refused_and_never_replaced(data: st.DataObject) -> None:
    disk = SimDisk()
    filled(disk)
    content = disk.files[KEYRING_PATH]
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 2))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 2)) :]
    before = bytes(content)
    with pytest.raises(RaftCorrupt, match="keyring"):
        journal(disk)
    assert disk.files[KEYRING_PATH] == before


def test_a_lost_keyring_is_not_an_empty_state() -> None:
    disk = SimDisk()
    filled(disk)
    del disk.files[KEYRING_PATH]
    with pytest.raises(RaftCorrupt, match="keyring is missing"):
        journal(disk)
    assert KEYRING_PATH not in disk.files


def test_another_node_s_keyring_is_refused() -> None:
    disk = SimDisk()
    keyring(disk)
    with pytest.raises(RaftCorrupt, match="belongs to node n of cluster c, not to node m"):
        keyring(disk, node_id="m")


def test_a_keyring_of_another_time_is_refused() -> None:
    disk = SimDisk()
    keyring(disk)
    early = disk.files[KEYRING_PATH]
    made = filled(disk)
    ring = keyring(disk)
    ring.rotate(FIRST)
    again = journal(disk, FIRST)
    again.deleteEntriesTo(0)
    disk.files[KEYRING_PATH] = early
    assert made.last_index() == again.last_index()
    with pytest.raises(RaftCorrupt, match="not of the same time"):
        journal(disk)


def test_a_keyring_that_can_t_be_written_changes_nothing() -> None:
    disk = SimDisk()
    ring = keyring(disk)
    for operation in ("create", "write", "sync", "rename"):
        disk.fail = lambda name, path, operation=operation: name == operation
        with pytest.raises(OSError, match="no space"):
            ring.rotate(FIRST)
        disk.fail = lambda name, path: False
        assert keyring(disk).current == ring.current


# --- the log ----------------------------------------------------------------------------------------------


def frames(disk: SimDisk) -> Iterator[tuple[bytearray, int, int]]:
    """Every frame on the disk: the file's content, where it begins, where its payload ends."""
    for path in sorted(disk.files):
        if path.name.startswith("log."):
            content = disk.files[path]
            offset = parse_head(bytes(content))[0]
            while offset < len(content):
                end = offset + HEADER_SIZE + int.from_bytes(content[offset + 12 : offset + 16], "little")
                yield content, offset, end
                offset = end


def test_nothing_of_an_entry_is_on_the_disk() -> None:
    disk = SimDisk()
    filled(disk)
    assert readable(disk) == []


def test_a_frame_that_was_changed_with_its_checksum_is_not_taken_for_torn() -> None:
    """Even the last: no crash does that."""
    disk = SimDisk()
    filled(disk)
    content, start, end = list(frames(disk))[-1]
    content[end - 1] ^= 1
    content[start + 20 : start + 24] = zlib.crc32(content[start + HEADER_SIZE : end]).to_bytes(4, "little")
    with pytest.raises(RaftCorrupt, match="was changed or is of another log"):
        journal(disk)


def test_frames_can_t_change_places() -> None:
    """Not even with their numbers and checksums put right."""
    disk = SimDisk()
    filled(disk, segment_bytes=100_000)
    *_, (one, start, end), (other, there, until) = frames(disk)
    assert one is other
    assert end - start == until - there
    first, second = bytes(one[start + HEADER_SIZE : end]), bytes(one[there + HEADER_SIZE : until])
    number = int.from_bytes(one[start + 4 : start + 12], "little")
    one[start:] = encode_frame(number, second) + encode_frame(number + 1, first)
    with pytest.raises(RaftCorrupt, match="was changed or is of another log"):
        journal(disk)


def test_a_log_file_can_t_come_from_another_node() -> None:
    """With the other node's key in the keyring, even."""
    disk = SimDisk()
    filled(disk)
    names = {path for path in disk.files if path.name.startswith("log.")}
    key = keyring(disk).current
    other = SimDisk()
    theirs = open_keyring(other, DIRECTORY, "c", "m", RANDOM)
    theirs._keys[key.id] = key.key
    for path in names:
        other.files[path] = disk.files[path]
    with pytest.raises(RaftCorrupt, match="was changed or is of another log"):
        Journal(other, DIRECTORY, Origin("c", "m", {}), theirs, fail_stop)


def plain_journal(disk: SimDisk, entries: int) -> None:
    """As the version before encryption wrote it."""
    made = filled(SimDisk(), 0)
    records = [b"O" + msgspec.msgpack.encode(ORIGIN), made._ballot_record()]
    content = PLAIN_FILE + encode_frame(1, payload_of(records))
    for index in range(1, entries + 1):
        content += encode_frame(index + 1, payload_of([_entry_record((SECRET, index, 1))]))
    file = disk.create(DIRECTORY / "log.0000000000000001")
    file.write(content)
    file.sync()


def test_a_log_in_clear_is_read_and_vanishes_with_the_next_compaction() -> None:
    disk = SimDisk()
    plain_journal(disk, 10)
    old = journal(disk)
    assert [index for _, index, _ in old[:]] == list(range(1, 11))
    assert old.stale
    old.add(SECRET, 11, 1)
    old.sync()
    assert readable(disk) == ["log.0000000000000001"], "what is new is encrypted at once"
    old.deleteEntriesTo(0)
    assert readable(disk) == []
    assert not old.stale
    assert journal(disk).last_index() == 11


@pytest.mark.parametrize("cut", [0, 1, 5])
def test_a_torn_end_of_a_log_in_clear_is_dropped(cut: int) -> None:
    disk = SimDisk()
    plain_journal(disk, 10)
    content = disk.files[DIRECTORY / "log.0000000000000001"]
    del content[len(content) - cut :]
    recovered = journal(disk)
    assert recovered.last_index() == (9 if cut else 10)
    recovered.add(b"x", recovered.last_index() + 1, 1)
    recovered.sync()
    assert journal(disk).last_index() == recovered.last_index()


def test_compaction_writes_anew_what_lies_under_an_old_key() -> None:
    disk = SimDisk()
    made = journal(disk, segment_bytes=10_000)
    for index in range(1, 11):
        made.add(SECRET, index, 1)
    made.sync()
    old = made._keyring.current
    made._keyring.used("snapshots", frozenset())
    made._keyring.rotate(FIRST)
    made.add(SECRET, 11, 1)  # not synced when the key changes
    made.change_key()
    assert made.stale
    assert old.id in keyring(disk, FIRST).ids
    assert journal(disk, FIRST).last_index() == 11
    made.deleteEntriesTo(8)
    assert not made.stale
    assert keyring(disk, FIRST).ids == {made._keyring.current.id}
    assert [index for _, index, _ in journal(disk, FIRST)[:]] == [9, 10, 11]


# --- a node -----------------------------------------------------------------------------------------------


def rotated(world: World, node_id: str, lock: Lock) -> list[object]:
    """Change a node's lock; returns a list that will hold the answer."""
    outcome: list[object] = []
    sim = world[node_id]
    assert sim.node is not None
    sim.locks = (*sim.locks, lock)
    sim.node.change_lock(lock, lambda result, error: outcome.append(error or "done"))
    sim.node._step()
    return outcome


def working(entries: int = 12) -> World:
    world = World()
    leader = world.elect("A")
    for number in range(entries):
        leader.propose(SECRET + b" %d" % number)
        world.rounds(2)
    return world


def test_a_rotation_leaves_nothing_under_the_old_key() -> None:
    world = working()
    a = world["A"]
    old = a.keyring.current
    assert rotated(world, "A", FIRST) == ["done"]
    world.rounds(4)
    assert a.keyring.ids == {a.keyring.current.id}
    assert old.id not in a.keyring.ids
    assert a.machine.entries
    entries = list(a.machine.entries)
    world.crash("A")
    a.locks = (SECOND,)
    with pytest.raises(WrongKey):
        a.start()
    a.locks = (FIRST,)
    world.restart("A")
    world.elect("A")
    assert a.machine.entries == entries


def test_no_file_of_any_node_holds_a_readable_entry() -> None:
    """Log, snapshots that were taken, and one that was received."""
    world = working()
    world.isolate("C")
    for number in range(5):
        world["A"].propose(SECRET + b" while C is away %d" % number)
        world.rounds(2, only="AB")
    world.compact("A")
    world.compact("B")
    world.heal("C")
    world.rounds(12)
    assert world["C"].machine.entries == world["A"].machine.entries
    for node_id in "ABC":
        disk = world[node_id].disk
        assert DIRECTORY / "snapshot" in disk.files
        assert readable(disk) == []


def test_files_in_clear_are_encrypted_soon_after_the_start() -> None:
    """What an older version left: its log, and its snapshot."""
    world = working()
    world.compact("A")
    a = world["A"]
    world.rounds(2)
    snapshot, log = b"".join(_plain_snapshot(a)), _plain_log(a)
    world.crash("A")
    a.disk.files = {DIRECTORY / "snapshot": bytearray(snapshot), DIRECTORY / "log.01": bytearray(log)}
    assert set(readable(a.disk)) == {"snapshot", "log.01"}
    world.restart("A")
    world.rounds(6)
    assert readable(a.disk) == []
    assert a.machine.entries == world["B"].machine.entries

    world.crash("A")  # and from then on nothing in clear counts
    a.disk.files[DIRECTORY / "snapshot"] = bytearray(snapshot)
    with pytest.raises(RaftCorrupt, match="snapshot is not encrypted"):
        world.restart("A")


@pytest.mark.parametrize("name", ["snapshot", "log.0000000000000001"])
def test_a_file_in_clear_can_t_be_put_in_the_place_of_an_encrypted_one(name: str) -> None:
    """It would be a state of somebody's own making, in a cluster that is locked."""
    world = working()
    a = world["A"]
    assert rotated(world, "A", FIRST) == ["done"]
    world.rounds(4)
    forged = b"".join(_plain_snapshot(a)) if name == "snapshot" else _plain_log(a)
    world.crash("A")
    if name != "snapshot":
        a.disk.files = {path: data for path, data in a.disk.files.items() if "log" not in path.name}
    a.disk.files[DIRECTORY / name] = bytearray(forged)
    with pytest.raises(RaftCorrupt, match="is not encrypted"):
        a.start()
    body = bytes(a.disk.files[KEYRING_PATH]).rpartition(b"\n")[0].rpartition(b"\n")[0]
    body = body.replace(b'"clear":false', b'"clear":true')
    digest = hashlib.sha256(body).hexdigest().encode()
    a.disk.files[KEYRING_PATH] = bytearray(body + b"\n" + digest + b"\n")
    with pytest.raises(RaftCorrupt, match="can't be decrypted"):
        a.start()


def test_a_locked_manager_takes_no_files_in_clear_for_an_older_version_s() -> None:
    """Nor when the keyring is taken away with everything else."""
    disk = SimDisk()
    plain_journal(disk, 3)
    with pytest.raises(RaftCorrupt, match="not those of a locked manager"):
        keyring(disk, FIRST)
    assert keyring(disk).lock == UNLOCKED


def _plain_log(sim) -> bytes:
    journal = sim.journal
    records = [b"O" + msgspec.msgpack.encode(journal.origin), journal._ballot_record()]
    records += [_entry_record(entry) for entry in journal[:]]
    return PLAIN_FILE + encode_frame(1, payload_of(records))


def _plain_snapshot(sim) -> Iterator[bytes]:
    file, _ = sim.node._snapshots._content()
    while data := file.read(1000):
        yield data


def test_a_snapshot_of_another_manager_can_t_be_put_in_place() -> None:
    world = working()
    for node_id in "AB":
        world.compact(node_id)
    world.crash("A")
    world["A"].disk.files[DIRECTORY / "snapshot"] = bytearray(world["B"].disk.files[DIRECTORY / "snapshot"])
    with pytest.raises(RaftCorrupt, match="data key"):
        world["A"].start()


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_damaged_snapshot_is_refused(data: st.DataObject) -> None:
    world = working(3)
    world.compact("A")
    world.crash("A")
    content = world["A"].disk.files[DIRECTORY / "snapshot"]
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    with pytest.raises(RaftCorrupt):
        world["A"].start()


def test_power_loss_at_every_operation_of_a_rotation_loses_nothing() -> None:
    """The disk dies at its n-th operation after the rotation began, for every n; either key may be right."""
    reached = set()
    for limit in count():
        world = working(6)
        a = world["A"]
        entries = list(a.machine.entries)
        a.locks = (FIRST,)
        remaining = limit
        died = False

        def fail(operation: str, path: Path) -> bool:
            nonlocal remaining, died
            died = died or remaining == 0
            remaining -= 1
            if died:
                reached.add((operation, path.name.partition(".")[0]))
                raise PowerLoss(5, "the power is gone", str(path))
            return False

        a.disk.fail = fail
        _rotate_until_the_end(world, a.node, FIRST)
        a.disk.fail = lambda operation, path: False
        world.crash("A")
        world.restart("A")
        world.elect("B")
        world.rounds(8)
        assert a.machine.entries == world["B"].machine.entries
        assert a.machine.entries[: len(entries)] == entries
        if not died:
            assert a.keyring.ids == {a.keyring.current.id}
            break
    kinds = {
        ("rename", "keyring"),
        ("sync", "keyring"),
        ("rename", "log"),
        ("rename", "snapshot"),
        ("remove", "log"),
    }
    assert kinds <= reached
    assert limit > 15


def test_a_key_between_two_rotations_is_kept_while_the_log_needs_it() -> None:
    """The second rotation comes before the first one's snapshot is there; then the power goes."""
    world = working()
    a = world["A"]
    world.hold_writers = True
    world.compact("A")
    assert world.writers
    assert rotated(world, "A", FIRST) == ["done"]
    a.propose(b"between")
    world.rounds(3)
    assert rotated(world, "A", SECOND) == ["done"]
    entries = list(a.machine.entries)
    a.disk.fail = lambda operation, path: (operation, path.name) == ("create", "new.log")
    for write in world.writers:
        write()
    assert a.node is not None
    a.node._step()  # the snapshot is there, and the log can't be written anew
    assert a.fatal
    a.disk.fail = lambda operation, path: False
    world.hold_writers = False
    world.crash("A")
    world.restart("A")
    world.elect("B")
    world.rounds(4)
    assert a.machine.entries == entries


def _rotate_until_the_end(world: World, node: RaftNode | None, lock: Lock) -> None:
    assert node is not None
    try:
        node.change_lock(lock, lambda result, error: None)
        world.rounds(4)
    except OSError:
        node._halted = True  # what the power took is the process, too


class RotationFuzz(Fuzz):
    """The usual trouble, while managers change their keys."""

    def trouble(self) -> None:
        super().trouble()
        if self.random.random() < 0.004:
            running = [sim for sim in self.world.nodes.values() if sim.node is not None]
            if running:
                sim = self.random.choice(running)
                key = new_key(self.random) if self.random.random() < 0.7 else None
                lock = Lock(key, self.count["rotations"] + 1)
                sim.locks = (*sim.locks, lock)
                assert sim.node is not None
                sim.node.change_lock(lock, lambda result, error: None)
                self.count["rotations"] += 1


@pytest.mark.parametrize("seed", range(6))
def test_every_promise_is_kept_while_keys_change(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    fuzz = RotationFuzz(seed)
    assert fuzz.run() == []
    assert fuzz.count["rotations"] > 5
    assert fuzz.count["acknowledged"] > 20


def test_randomness_is_the_system_s_own_by_default() -> None:
    """Two keyrings of real managers have nothing in common."""
    one, two = (open_keyring(SimDisk(), DIRECTORY, "c", "n", system_random()) for _ in range(2))
    assert one.current.key != two.current.key
