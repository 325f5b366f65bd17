"""A backup file: magic, length and JSON of a readable head, then the state as a sealed stream.

The key comes from a passphrase (or the cluster's unlock key as text) by scrypt. The head is bound to the
stream: neither can be changed, exchanged or cut off without being noticed. Pure but for the given reader.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import msgspec

from cluster.errors import InvalidArgument, ShoalError, Unauthorized
from cluster.objects import Cluster, Node, Secret, Service
from cluster.seams import Random
from manager.keys import sealing
from manager.store import snapshot
from manager.store.entry import UnknownSchema
from manager.store.view import View

MAGIC = b"SHOALBACKUP1\n"
VERSION = 1
_LENGTH = struct.Struct("<I")
_MAX_HEAD = 1 << 16
_SALT = 16
_MAX_MEMORY = 256 << 20  # that making the key may take
SHORTEST = 8
"""Characters of a passphrase."""

SecretKind = Literal["passphrase", "unlock key"]


class DamagedBackup(ShoalError):
    """Not a whole backup (400); nothing was changed."""

    status = 400


class Scrypt(msgspec.Struct, frozen=True):
    """How the key is made of the passphrase (RFC 7914). salt: hexadecimal."""

    salt: str
    n: int = 1 << 15
    r: int = 8
    p: int = 1

    def key(self, secret: str) -> bytes:
        """The key. Takes a tenth of a second and 32 MiB by default."""
        memory = 128 * self.r * (self.n + self.p + 2)
        sensible = self.n > 1 and self.n.bit_count() == 1 and self.r > 0 and 0 < self.p <= 16
        if not sensible or memory > _MAX_MEMORY:
            raise DamagedBackup("the backup's head is damaged: it asks for absurd work")
        return hashlib.scrypt(
            secret.encode(),
            salt=bytes.fromhex(self.salt),
            n=self.n,
            r=self.r,
            p=self.p,
            maxmem=memory + (1 << 20),
            dklen=sealing.KEY_SIZE,
        )


class Head(msgspec.Struct, frozen=True):
    """What a backup says of itself without its key. taken_at: Unix time, ns. index: of Raft's log."""

    version: int
    cluster_id: str
    node_id: str
    taken_at: int
    index: int
    sealed_with: SecretKind
    scrypt: Scrypt


class Contents(NamedTuple):
    """A backup that was read and checked as a whole."""

    head: Head
    view: View

    @property
    def cluster(self) -> Cluster:
        """The cluster; there is one, as that was checked."""
        found = self.view.cluster()
        assert found is not None
        return found

    def summary(self) -> dict[str, int]:
        """How much there is of what people count."""
        count = self.view.count
        return {"nodes": count(Node), "services": count(Service), "secrets": count(Secret)}


def check_passphrase(secret: str) -> None:
    """Refuse one that can be guessed at once."""
    if len(secret) < SHORTEST:
        raise InvalidArgument(
            "the backup holds the cluster's CA key and all secrets: give a passphrase of at least "
            f"{SHORTEST} characters"
        )


def write_backup(
    view: View, node_id: str, secret: str, kind: SecretKind, taken_at: int, random: Random
) -> Iterator[bytes]:
    """The file's bytes, made as they are asked for: in another thread, if you like."""
    cluster = view.cluster()
    if cluster is None:
        raise InvalidArgument("there is no state to back up yet")
    salt = random.getrandbits(8 * _SALT).to_bytes(_SALT, "big").hex()
    head = Head(VERSION, cluster.id, node_id, taken_at, view.index, kind, Scrypt(salt))
    encoded = msgspec.json.encode(head)
    yield MAGIC + _LENGTH.pack(len(encoded)) + encoded
    yield from sealing.seal(snapshot.write(view, []), head.scrypt.key(secret), _context(encoded), random)


def read_head(read: Callable[[int], bytes]) -> tuple[Head, bytes]:
    """The head, and its bytes. Raises DamagedBackup."""
    if sealing.exactly(read, len(MAGIC)) != MAGIC:
        raise DamagedBackup("this is not a backup of a Shoal cluster, or its first bytes are damaged")
    try:
        (length,) = _LENGTH.unpack(sealing.exactly(read, _LENGTH.size))
        if length > _MAX_HEAD:
            raise DamagedBackup("the backup's head is damaged")
        encoded = sealing.exactly(read, length)
        head = msgspec.json.decode(encoded, type=Head)
        bytes.fromhex(head.scrypt.salt)
    except (struct.error, msgspec.MsgspecError, ValueError) as error:
        raise DamagedBackup(f"the backup's head is damaged: {error}") from error
    if head.version > VERSION:
        raise InvalidArgument(
            f"the backup has format {head.version}, and this Shoal knows {VERSION}: upgrade it first"
        )
    return head, encoded


def read_backup(read: Callable[[int], bytes], secret: str) -> Contents:
    """Read and check all of it; nothing is given out before its end was seen.

    Raises Unauthorized (wrong passphrase), DamagedBackup, InvalidArgument (of a newer version).
    """
    head, encoded = read_head(read)
    try:
        state = snapshot.read(head.index, sealing.unseal(read, head.scrypt.key(secret), _context(encoded)))
    except sealing.WrongKey as error:
        raise Unauthorized(
            f"this is not the {head.sealed_with} that the backup is encrypted with, or its head is damaged"
        ) from error
    except UnknownSchema as error:
        raise InvalidArgument(f"the backup was taken by a newer Shoal: {error}") from error
    except (sealing.Damaged, snapshot.DamagedSnapshot) as error:
        raise DamagedBackup(f"the backup is damaged: {error}") from error
    cluster = state.view.cluster()
    if cluster is None or cluster.id != head.cluster_id or not cluster.root_ca.certificate:
        raise DamagedBackup("the backup lacks the cluster, or its CA")
    return Contents(head, state.view)


def _context(head: bytes) -> bytes:
    return b"shoal backup 1\0" + head
