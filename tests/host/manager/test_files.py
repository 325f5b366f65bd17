"""Root hands files to the manager's user, and can't be tricked by it into giving away others."""

import os
import stat
from pathlib import Path

import pytest

from cluster.identity import Identity
from shoal.daemon.manager_account import Account
from shoal.daemon.manager_files import ManagersFiles
from shoal.daemon.membership import MembershipStore

pytestmark = pytest.mark.host

ACCOUNT = Account(65521, 65522)


@pytest.fixture
def store(tmp_path: Path) -> MembershipStore:
    return MembershipStore(tmp_path / "swarm")


@pytest.fixture
def files(store: MembershipStore, tmp_path: Path) -> ManagersFiles:
    return ManagersFiles(store, tmp_path / "run" / "manager.sock", ACCOUNT)


def seen(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_a_first_start(files: ManagersFiles, store: MembershipStore, tmp_path: Path) -> None:
    files.hand_over()
    assert seen(tmp_path / "run") == (*ACCOUNT, 0o700)
    assert seen(store.root) == (0, ACCOUNT.gid, 0o750)
    assert seen(store.raft) == (*ACCOUNT, 0o700)
    assert seen(store.certificates) == (*ACCOUNT, 0o700)  # the founder writes them


def test_what_was_roots(files: ManagersFiles, store: MembershipStore) -> None:
    store.save_identity(Identity(certificate=b"c", key=b"k", root_ca=b"r"))
    (store.raft / "deep").mkdir(parents=True)
    (store.raft / "journal").write_text("x")
    (store.raft / "deep" / "snapshot").write_text("x")
    files.hand_over()
    assert seen(store.raft / "journal") == seen(store.raft / "deep" / "snapshot") == (*ACCOUNT, 0o600)
    assert seen(store.raft / "deep") == (*ACCOUNT, 0o700)
    assert seen(store.certificates.resolve()) == (0, ACCOUNT.gid, 0o750)
    assert seen(store.certificates / "node.key") == (0, ACCOUNT.gid, 0o640)
    store.save_identity(Identity(certificate=b"d", key=b"l", root_ca=b"r"))
    assert seen(store.certificates / "node.key")[1:] == (0, 0o600)
    files.share_certificates()
    assert seen(store.certificates / "node.key") == (0, ACCOUNT.gid, 0o640)


@pytest.mark.parametrize("trick", ["symbolic link", "hard link", "link to a directory", "fifo", "device"])
def test_nothing_of_others_is_given_away(
    files: ManagersFiles, store: MembershipStore, tmp_path: Path, trick: str
) -> None:
    files.hand_over()
    others = tmp_path / "others"
    others.mkdir()
    (others / "file").write_text("root's")
    planted = store.raft / "planted"
    match trick:
        case "symbolic link":
            planted.symlink_to(others / "file")
        case "hard link":
            planted.hardlink_to(others / "file")
        case "link to a directory":
            planted.symlink_to(others)
        case "fifo":
            os.mkfifo(planted)
        case _:
            os.mknod(planted, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    before = seen(others), seen(others / "file")
    with pytest.raises(OSError):
        files.hand_over()
    assert (seen(others), seen(others / "file")) == before
