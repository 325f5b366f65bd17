"""The data keys of one manager, in one small file: what its log and its snapshots are encrypted with.

The file holds them encrypted with a key-encryption key (KEK). Without autolock the KEK is in the file, too,
so that the manager starts by itself; with autolock the KEK is the cluster's unlock key and is never on disk.
All that a rotation changes is in this file, so it happens as a whole or not at all.

File: magic, a line of JSON, and a line with the SHA-256 of both, which tells damage from a wrong key.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from cluster.codec import UNREADABLE
from cluster.seams import Random
from manager.keys.locks import UNLOCKED, Lock
from manager.keys.sealing import MAGIC, Damaged, WrongKey, key_id, new_key, seal_message, unseal_message
from manager.raft.disk import Disk
from manager.raft.errors import RaftCorrupt

log = logging.getLogger("shoal.raft.keyring")

KEYRING = "keyring"
"""The file's name, in the manager's state directory."""
SEALED_LOG = b"SHOALWAL2\n"
"""How an encrypted log file begins."""
CLEAR = (b"SHOALWAL1\n", b"SHOALSNP1\n")
"""How logs and snapshots begin that an older version wrote, without encryption."""
_MAGIC = b"SHOALKEYS1\n"


class DataKey(NamedTuple):
    """A key that files are encrypted with, and the name that they carry of it."""

    id: str
    key: bytes


class KeyringFile(msgspec.Struct, frozen=True):
    """What is in the file."""

    cluster_id: str
    node_id: str
    kek_id: str
    kek: bytes
    """Empty when the manager is locked at rest."""
    keys: bytes
    """Encrypted: the data keys, the one in use last."""
    version: int = 0
    """Of the cluster object that says whether to lock, and with which key."""
    clear: bool = False
    """Whether there may be files of an older version, in clear; the encrypted keys are bound to it."""

    @property
    def context(self) -> bytes:
        """What the encrypted keys are bound to."""
        purpose = "keyring beside files in clear" if self.clear else "keyring"
        return _context(self.cluster_id, self.node_id, purpose)

    @property
    def locked(self) -> bool:
        """Whether it takes the unlock key to read it."""
        return not self.kek

    def kek_among(self, locks: Sequence[Lock]) -> bytes:
        """The key that it is encrypted with. Raises WrongKey when that is none of these."""
        for kek in (self.kek,) if self.kek else (lock.key for lock in locks if lock.key):
            if key_id(kek) == self.kek_id:
                return kek
        raise WrongKey(f"the manager's keys are locked with unlock key {self.kek_id}, which was not given")


def parse_keyring(content: bytes, path: Path) -> KeyringFile:
    """Read the file's content. Raises RaftCorrupt."""
    body, _, digest = content.removesuffix(b"\n").rpartition(b"\n")
    if not body.startswith(_MAGIC) or hashlib.sha256(body).hexdigest().encode() != digest:
        raise RaftCorrupt(
            f"{path}, which holds the keys of this manager's Raft log, is damaged: if there is a copy of "
            "this directory, restore the whole of it"
        )
    return msgspec.json.decode(body[len(_MAGIC) :], type=KeyringFile)


class Keyring:
    """The open keyring. Lives on the Raft loop."""

    def __init__(self, disk: Disk, directory: Path, file: KeyringFile, kek: bytes, random: Random) -> None:
        """See `open_keyring`. Raises RaftCorrupt."""
        self._disk = disk
        self._path = directory / KEYRING
        self.random = random
        self._file = file
        self._kek = kek
        self._used: dict[str, frozenset[str]] = {}
        try:
            keys = msgspec.msgpack.decode(unseal_message(kek, file.keys, file.context), type=list[bytes])
        except (Damaged, *UNREADABLE) as error:
            raise RaftCorrupt(f"{self._path} can't be decrypted: {error}") from error
        self._keys = {key_id(key): key for key in keys}
        if not self._keys:
            raise RaftCorrupt(f"{self._path} holds no key")

    @property
    def current(self) -> DataKey:
        """What new files are encrypted with."""
        return DataKey(*list(self._keys.items())[-1])

    @property
    def ids(self) -> frozenset[str]:
        """The names of all keys held."""
        return frozenset(self._keys)

    @property
    def lock(self) -> Lock:
        """What locks this manager at rest."""
        return Lock(self._kek if self._file.locked else None, self._file.version)

    def check_clear(self, path: Path) -> None:
        """A file in clear was found. Raises RaftCorrupt when none can be left: then somebody put it there."""
        if not self._file.clear:
            raise RaftCorrupt(f"{path} is not encrypted, and this manager writes no such files")

    def context(self, purpose: str) -> bytes:
        """What binds a file to its purpose, cluster and node."""
        return _context(self._file.cluster_id, self._file.node_id, purpose)

    def key(self, id_: str, path: Path) -> bytes:
        """The key that a file names. Raises RaftCorrupt."""
        try:
            return self._keys[id_]
        except KeyError:
            raise RaftCorrupt(
                f"{path} is encrypted with data key {id_}, which is not in {self._path}: the two are not of "
                "the same time, or one is damaged"
            ) from None

    def rotate(self, lock: Lock) -> None:
        """Encrypt the keys with another KEK (without a lock a random one), and use a new data key.

        Durable on return. Raises OSError; then nothing has changed here, but it may have on disk.
        """
        key = new_key(self.random)
        self._write({**self._keys, key_id(key): key}, lock, self._file.clear)

    def used(self, by: str, ids: frozenset[str]) -> None:
        """The log, or the snapshots, use these keys now ("": none); keys that none uses are forgotten."""
        self._used[by] = ids
        needed = frozenset[str]().union(*self._used.values()) | {self.current.id}
        clear = self._file.clear and "" in needed
        if len(self._used) == len(USERS) and not (self.ids <= needed and clear == self._file.clear):
            kept = {id_: key for id_, key in self._keys.items() if id_ in needed}
            try:
                self._write(kept, self.lock, clear)
            except OSError as error:  # the next call tries again
                log.warning("an old data key can't be forgotten yet", extra={"reason": str(error)})

    def _write(self, keys: dict[str, bytes], lock: Lock, clear: bool) -> None:
        file, kek = _encrypted(self._file.cluster_id, self._file.node_id, keys, lock, clear, self.random)
        _write(self._disk, self._path, file)
        self._file, self._keys, self._kek = file, keys, kek


USERS = ("log", "snapshots")
"""Who uses data keys."""


def open_keyring(
    disk: Disk,
    directory: Path,
    cluster_id: str,
    node_id: str,
    random: Random,
    locks: Sequence[Lock] = (),
) -> Keyring:
    """The manager's keyring; a new one when there is none, under the newest of the locks.

    Several may be given, as a rotation may or may not have come to its end. Raises WrongKey when the right
    one is not among them, RaftCorrupt for a damaged file or another node's, OSError.
    """
    path = directory / KEYRING
    disk.remove(path.with_suffix(".new"))
    if not disk.exists(path):
        clear = _must_be_in_clear(disk, directory)
        key, lock = new_key(random), max(locks, key=lambda lock: lock.version, default=UNLOCKED)
        if clear and lock.key:  # the version that wrote such files had no locks
            raise RaftCorrupt(f"{path} is missing, and the files beside it are not those of a locked manager")
        file, kek = _encrypted(cluster_id, node_id, {key_id(key): key}, lock, clear, random)
        _write(disk, path, file)
        return Keyring(disk, directory, file, kek, random)
    source = disk.open_read(path)
    try:
        file = parse_keyring(source.read(), path)
    finally:
        source.close()
    if (file.cluster_id, file.node_id) != (cluster_id, node_id):
        raise RaftCorrupt(
            f"the Raft state in {directory} belongs to node {file.node_id} of cluster {file.cluster_id}, "
            f"not to node {node_id} of cluster {cluster_id}"
        )
    return Keyring(disk, directory, file, file.kek_among(locks), random)


def _must_be_in_clear(disk: Disk, directory: Path) -> bool:
    """Without a keyring there may be the files of an older version, and no others; whether there are."""
    found = False
    for name in disk.list_files(directory):
        source = disk.open_read(directory / name)
        try:
            head = source.read(len(MAGIC))
        finally:
            source.close()
        if head.startswith((MAGIC, SEALED_LOG)):
            raise RaftCorrupt(
                f"{directory / KEYRING} is missing, and {name} can't be read without the keys in it: if "
                "there is a copy of this directory, restore the whole of it"
            )
        found = found or head.startswith(CLEAR)
    return found


def _encrypted(
    cluster_id: str, node_id: str, keys: dict[str, bytes], lock: Lock, clear: bool, random: Random
) -> tuple[KeyringFile, bytes]:
    """The file, and the KEK."""
    kek = lock.key or new_key(random)
    content = msgspec.msgpack.encode(list(keys.values()))
    in_file = b"" if lock.key else kek
    file = KeyringFile(cluster_id, node_id, key_id(kek), in_file, b"", lock.version, clear)
    return replace(file, keys=seal_message(kek, content, file.context, random)), kek


def _write(disk: Disk, path: Path, content: KeyringFile) -> None:
    temporary = path.with_suffix(".new")
    body = _MAGIC + msgspec.json.encode(content)
    file = disk.create(temporary)
    try:
        file.write(body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n")
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, path)


def _context(cluster_id: str, node_id: str, purpose: str) -> bytes:
    return b"\0".join((b"shoal", purpose.encode(), cluster_id.encode(), node_id.encode()))
