"""The library that makes power losses honest: what was synced stays, and nothing else does."""

import os
from pathlib import Path

import pytest

from tests.chaos import power
from tests.host.chaos.disk import Disk

pytestmark = pytest.mark.host

HELPERS = """
import os, sys
root = sys.argv[1]
def write(name, data, sync, how=os.O_CREAT | os.O_WRONLY | os.O_APPEND):
    descriptor = os.open(os.path.join(root, name), how, 0o600)
    os.write(descriptor, data)
    if sync:
        os.fdatasync(descriptor)
    os.close(descriptor)
def sync_directory(name="."):
    descriptor = os.open(os.path.join(root, name), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)
def rename(old, new):
    os.rename(os.path.join(root, old), os.path.join(root, new))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return power.build(tmp_path_factory.mktemp("library"))


@pytest.fixture
def disk(tmp_path: Path, library: Path) -> Disk:
    root = tmp_path / "root"
    root.mkdir()
    return Disk(root, library, HELPERS)


def test_a_synced_write_stays_and_an_unsynced_one_is_lost(disk: Disk) -> None:
    disk.run("""
write("log", b"synced ", True)
sync_directory()
write("log", b"not synced", False)
write("other", b"nothing of it", False)
sync_directory()
""")
    assert disk.after_power_loss() == {"log": b"synced ", "other": b""}


def test_a_name_is_there_only_when_its_directory_was_synced(disk: Disk) -> None:
    disk.run("""
write("kept", b"1", True)
sync_directory()
write("nameless", b"2", True)
""")
    assert disk.after_power_loss() == {"kept": b"1"}


def test_a_rename_without_a_sync_of_the_directory_is_lost(disk: Disk) -> None:
    disk.run("""
write("state", b"old", True)
sync_directory()
write("new", b"new", True)
rename("new", "state")
""")
    assert disk.after_power_loss() == {"state": b"old"}
    disk.run("""
write("new", b"new", True)
rename("new", "state")
sync_directory()
""")
    assert disk.after_power_loss() == {"state": b"new"}


def test_a_removal_without_a_sync_of_the_directory_comes_back_even_when_its_inode_was_used_again(
    disk: Disk,
) -> None:
    disk.run("""
write("old", b"old", True)
sync_directory()
os.unlink(os.path.join(root, "old"))
for number in range(20):
    write(f"new{number}", b"another", True)
""")
    assert disk.after_power_loss() == {"old": b"old"}


def test_a_write_over_what_was_there_and_a_cut(disk: Disk) -> None:
    disk.run("""
write("log", b"x" * 200_000, True)
sync_directory()
write("log", b"changed", True, os.O_WRONLY)
descriptor = os.open(os.path.join(root, "log"), os.O_WRONLY)
os.ftruncate(descriptor, 150_000)
os.fsync(descriptor)
os.ftruncate(descriptor, 10)
""")
    assert disk.after_power_loss() == {"log": b"changed" + b"x" * (150_000 - 7)}


def test_directories_links_and_a_second_power_loss(disk: Disk) -> None:
    disk.run("""
os.mkdir(os.path.join(root, "first"), 0o700)
write("first/file", b"1", True)
sync_directory("first")
os.symlink("first", os.path.join(root, "current"))
sync_directory()
os.mkdir(os.path.join(root, "lost"))
""")
    assert disk.after_power_loss() == {"first/file": b"1"}
    assert (disk.root / "current").readlink() == Path("first")
    assert (disk.root / "first").stat().st_mode & 0o777 == 0o700
    disk.run("""
write("first/file", b"2", True)
write("first/file", b"3", False)
""")
    assert disk.after_power_loss() == {"first/file": b"12"}


def test_without_the_library_nothing_is_claimed(disk: Disk) -> None:
    (disk.root / "file").write_bytes(b"")
    os.sync()
    with pytest.raises(RuntimeError, match="was it loaded"):
        power.lose_power(disk.root)
