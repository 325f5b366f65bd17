"""What on the disk is the manager process's own, and what it may read.

exec-root/manager/                the manager's: its private socket, and why it ended
data-root/swarm/                  root's; the manager may look through it
data-root/swarm/raft/             the manager's
data-root/swarm/certificates.*/   root's, which the manager reads
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from manager.keys.locks import Lock
from shoal.daemon.manager_account import Account
from shoal.daemon.membership import MembershipStore


class ManagersFiles:
    """Hands the manager what it needs, and nothing else."""

    def __init__(self, store: MembershipStore, socket: Path, account: Account) -> None:
        self._store = store
        self.socket = socket
        self.account = account

    def hand_over(self) -> None:
        """Make and give; also what an earlier version, a restored backup or a renewal left as root's.

        For the time when no manager runs, but for the certificates, which may change under one.

        Raises:
            OSError: a file can't be made or given.
        """
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        _give(self.socket.parent, self.account, 0o700)
        self._store.root.mkdir(parents=True, exist_ok=True)
        _give(self._store.root, Account(0, self.account.gid), 0o750)
        self._store.raft.mkdir(exist_ok=True)
        _give_tree(self._store.raft, self.account)
        if not self._store.certificates.exists():
            self._store.certificates.mkdir()
            _give(self._store.certificates, self.account, 0o700)
        self.share_certificates()

    def take_certificates(self) -> None:
        """The founder wrote the first ones; from now on they are root's, too.

        Raises:
            OSError: a file can't be read or written.
        """
        self._store.save_identity(self._store.identity())
        self.share_certificates()

    @property
    def locks(self) -> Sequence[Lock]:
        """All that the manager's keys may be locked with."""
        return self._store.locks

    def keep_locks(self, locks: Sequence[Lock]) -> None:
        """Remember other locks, and encrypt the TLS key accordingly.

        Raises:
            OSError: a file can't be read or written.
            ShoalError: the TLS key is locked with an unknown key.
        """
        if self._store.keep_locks(locks):
            self.share_certificates()

    def share_certificates(self) -> None:
        """Let the manager read them, and no other user."""
        directory = self._store.certificates.resolve()
        if directory.stat().st_uid != 0:
            return  # the founder's own, of an init that broke off
        readers = Account(0, self.account.gid)
        _give(directory, readers, 0o750)
        for path in directory.iterdir():
            _give(path, readers, 0o640)


def _give(path: Path, account: Account, mode: int) -> None:
    """Neither a link nor a file with a second name is followed: its owner may be about to trick root."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISDIR(found.st_mode) and not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
            raise PermissionError(f"{path} is neither a directory nor a plain file: remove it")
        if (found.st_uid, found.st_gid) != account:
            os.fchown(descriptor, *account)
        if stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _give_tree(directory: Path, account: Account) -> None:
    _give(directory, account, 0o700)
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            _give_tree(path, account)
        else:
            _give(path, account, 0o600)
