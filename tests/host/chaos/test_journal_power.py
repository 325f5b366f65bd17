"""A manager that is killed leaves writes in the page cache; the next one must not take them for durable."""

from pathlib import Path

import pytest

from tests.chaos import power
from tests.host.chaos.disk import Disk

pytestmark = pytest.mark.host

HELPERS = """
import os, sys
from pathlib import Path
from cluster.seams import system_random
from manager.raft.disk import SystemDisk
from manager.raft.journal import Journal, Origin
from manager.raft.keyring import open_keyring

directory, disk = Path(sys.argv[1]), SystemDisk()

def opened(segment_bytes=1 << 20):
    keyring = open_keyring(disk, directory, "cluster", "node", system_random())
    return Journal(disk, directory, Origin("cluster", "node", {}), keyring, sys.exit, segment_bytes)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    root = tmp_path / "raft"
    root.mkdir()
    return Disk(root, power.build(tmp_path), HELPERS)


def test_an_entry_that_was_written_and_not_synced(disk: Disk) -> None:
    disk.run("""
journal = opened()
journal.add(b"first", 1, 0)
journal.sync()
journal.add(b"second", 2, 0)
os.fdatasync = lambda descriptor: os._exit(0)  # kill -9, with the entry in the page cache
journal.sync()
""")
    disk.run("assert len(opened()) == 2")  # a follower with these tells its leader that it has them
    power.lose_power(disk.root)
    disk.run("assert len(opened()) == 2")


def test_a_segment_that_was_renamed_and_its_directory_not_synced(disk: Disk) -> None:
    disk.run("""
journal = opened(segment_bytes=1)
journal.add(b"first", 1, 0)
fsync = os.fsync
os.fsync = lambda descriptor: os._exit(0)  # kill -9, before the new segment's name is durable
journal.sync()
""")
    disk.run("""
journal = opened()
journal.add(b"second", 2, 0)
journal.sync()  # acknowledged
""")
    power.lose_power(disk.root)
    disk.run("assert len(opened()) == 2")
