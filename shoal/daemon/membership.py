"""This node's membership of a cluster, on disk: who it is, where its managers are, its certificate.

data-root/swarm/state.json                  what follows
data-root/swarm/certificates/node.crt …     certificate, key (0600), root CA
data-root/swarm/worker/                     the agent's memory
data-root/swarm/raft/                       the manager's journal and snapshots
"""

import hashlib
import os
import shutil
import ssl
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cluster.codec import UNREADABLE
from cluster.errors import Unauthorized, Unavailable
from cluster.identity import Identity, Peer
from cluster.messages import ManagerAddress
from cluster.states import Role
from manager.certificates import load_identity
from manager.keys.locks import UNLOCKED, Lock, lock_tls_key
from manager.keys.sealing import WrongKey
from manager.raft.errors import RaftCorrupt
from manager.raft.keyring import KEYRING, KeyringFile, parse_keyring
from manager.rpc.tls import load_chain

LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
    '"docker swarm unlock" to unlock it.'
)


class InvalidUnlockKey(Unauthorized):
    """The manager is locked with another key."""

    def __init__(self) -> None:
        super().__init__("swarm could not be unlocked: invalid key provided")


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """What a node knows of its place in a cluster. Addresses are "ip:port" unless they say otherwise."""

    node_id: str
    cluster_id: str
    role: Role
    listen_address: str
    advertise_address: str
    data_path_address: str  # an IP
    advertise_local: bool = False
    """The advertised address was this machine's own; when it is no more, the node has moved."""
    data_path_port: int = 4789
    managers: tuple[ManagerAddress, ...] = ()

    @property
    def address(self) -> str:
        """The node's own IP, as other nodes reach it."""
        return self.advertise_address.rpartition(":")[0].strip("[]")


class MembershipStore:
    """The directory data-root/swarm."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.certificates = root / "certificates"
        self.worker = root / "worker"
        self.raft = root / "raft"
        self.locks: tuple[Lock, ...] = (UNLOCKED,)
        """All that may lock this node's manager, in memory only; none while the manager is locked."""
        self.restored = root.with_name(f"{root.name}.restored")
        """A membership made of a backup, until it takes this one's place."""
        self._state = root / "state.json"
        self._doomed = root.with_name(f"{root.name}.removed")

    def load(self) -> Membership | None:
        """The membership, or None outside any cluster. For the start: it clears what broke off."""
        self._sweep()
        for left in (self.restored, *self.root.parent.glob("restore.*")):
            shutil.rmtree(left, ignore_errors=True)
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=Membership)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            raise Unavailable(
                f"can't read this node's membership in {self._state} ({error}): restore the file, or remove "
                f"{self.root} and join the cluster again"
            ) from error

    def save(self, membership: Membership) -> None:
        """Write it, synced: it is what a restart goes by."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(self._state, msgspec.json.format(msgspec.json.encode(membership)))

    def identity(self) -> Identity:
        """The node's certificate, key and root CA. Raises OSError, and WrongKey while they are locked."""
        return load_identity(self.certificates, self.locks)

    def peer(self) -> Peer:
        """What the node's certificate says, locked or not."""
        return Identity((self.certificates / "node.crt").read_bytes(), b"", b"").peer

    def trust_root(self) -> str:
        """The root certificates that this node trusts; empty when they can't be read."""
        try:
            return (self.certificates / "ca.crt").read_text()
        except (OSError, ValueError):
            return ""

    def save_identity(self, identity: Identity, locks: Sequence[Lock] = ()) -> None:
        """Write certificate, key and root CA; a crash leaves the old three or the new ones.

        They go into a directory of their own; `certificates` is a symlink that is replaced at once. With
        autolock the key is encrypted. `locks`: others than so far. Raises OSError; Unavailable while locked.
        """
        locks = tuple(locks or self.locks)
        if not locks:
            raise Unavailable(LOCKED)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        serial = hashlib.sha256(identity.certificate).hexdigest()[:16]
        target = self.root / f"certificates.{serial}"
        target.mkdir(exist_ok=True, mode=0o700)
        _write(target / "ca.crt", identity.root_ca)
        _write(target / "node.key", lock_tls_key(identity.key, locks))
        _write(target / "node.crt", identity.certificate)
        if self.certificates.is_dir() and not self.certificates.is_symlink():
            self.certificates.rename(self.root / "certificates.first")
        link = self.root / "certificates.new"
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        link.replace(self.certificates)
        _sync_directory(self.root)  # before the old ones go
        for old in self.root.glob("certificates.*"):
            if old.name != target.name:
                shutil.rmtree(old)
        self.locks = locks

    def client_context(self) -> ssl.SSLContext:
        """TLS towards managers: this node's certificate, the cluster's root; the caller checks names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # nodes are known by the certificate's subject, not by a DNS name
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.certificates / "ca.crt")
        try:
            load_chain(context, self.identity())
        except WrongKey as error:
            raise PermissionError(str(error)) from error
        return context

    # --- autolock -----------------------------------------------------------------------------------------

    def look_at_lock(self) -> None:
        """At the start: whether the manager's keys are locked, and nobody has said with what."""
        try:
            file = self._keyring()
        except (RaftCorrupt, OSError):
            file = None  # the manager will say what is wrong, and the node runs its tasks
        self.locks = () if file is not None and file.locked else (UNLOCKED,)

    @property
    def locked(self) -> bool:
        """Whether the manager can't be started before someone says its unlock key."""
        return not self.locks

    def unlock(self, key: bytes) -> None:
        """Someone said the unlock key. Raises InvalidUnlockKey when it is another, RaftCorrupt, OSError."""
        file = self._keyring()
        lock = Lock(key, file.version if file is not None else 0)
        try:
            if file is not None:
                file.kek_among((lock,))
            identity = load_identity(self.certificates, (lock,))
        except WrongKey as error:
            raise InvalidUnlockKey from error
        # A crash while autolock was turned on may have left the TLS key in clear.
        self.save_identity(identity, (lock,))

    def keep_locks(self, locks: Sequence[Lock]) -> bool:
        """Remember other locks, and encrypt the TLS key accordingly; whether that changed the file.

        Raises OSError, WrongKey, and Unavailable while the manager is locked.
        """
        if self.locked:
            raise Unavailable(LOCKED)
        same = {lock.key for lock in locks} == {lock.key for lock in self.locks}
        before, self.locks = self.locks, tuple(locks)
        if same or not self.certificates.exists():
            return False
        try:
            identity = load_identity(self.certificates, (*before, *locks))
            _write(self.certificates / "node.key", lock_tls_key(identity.key, locks))
        except BaseException:
            self.locks = (*before, *locks)
            raise
        return True

    def _keyring(self) -> KeyringFile | None:
        path = self.raft / KEYRING
        try:
            return parse_keyring(path.read_bytes(), path)
        except FileNotFoundError:
            return None

    def forget(self) -> None:
        """The node left: remove everything. A crash leaves all of it, or nothing that counts."""
        if self.root.exists():
            self.root.rename(self._doomed)
        self._sweep()
        self.locks = (UNLOCKED,)

    def take_restored(self) -> None:
        """Put what was made of a backup in the place of what was here, durably. Raises OSError."""
        self.forget()
        self.restored.rename(self.root)
        _sync_directory(self.root.parent)

    def _sweep(self) -> None:
        if self._doomed.exists():
            shutil.rmtree(self._doomed)

    def has_raft(self) -> bool:
        """Whether there is any of the cluster's state."""
        return self.raft.is_dir() and any(path.name != KEYRING for path in self.raft.iterdir())

    def forget_raft(self) -> None:
        """The node is no longer a manager: its copy of the cluster's state goes."""
        if self.raft.exists():
            shutil.rmtree(self.raft)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
