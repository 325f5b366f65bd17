"""Authenticated encryption (AES-256-GCM): streams in chunks, and single small messages.

A stream: magic, the key's id, a random salt, then chunks: length and last-mark, ciphertext, tag. The
stream's own key is derived (HKDF-SHA256) from the key, the salt and a context that says what the stream is,
so one stream's bytes mean nothing in another. The nonce is the chunk's number, and the last chunk is marked
under the tag: a chunk that is missing, swapped, repeated or cut off at the end is noticed.
"""

import struct
from collections.abc import Callable, Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster.errors import ShoalError
from cluster.seams import Random, system_random

KEY_SIZE = 32
"""Bytes of every key here."""
SALT_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
CHUNK = 1 << 20
"""Bytes of a stream that are encrypted as one."""
MAGIC = b"SHOALSEAL1\n"
_ID_SIZE = 8
_HEAD = struct.Struct(f"{len(MAGIC)}s{_ID_SIZE}s{SALT_SIZE}s")
_CHUNK = struct.Struct("<I?")  # length of the plain text; whether it is the last


class WrongKey(ShoalError):
    """Sealed with another key."""


class Damaged(ShoalError):
    """Not what was sealed: changed, cut off, or something else altogether."""


def new_key(random: Random) -> bytes:
    """A new random key."""
    return random.getrandbits(8 * KEY_SIZE).to_bytes(KEY_SIZE, "big")


def key_id(key: bytes) -> str:
    """A name for a key that tells nothing of it: 16 hexadecimal digits."""
    return derived(key, b"", b"shoal key id")[:_ID_SIZE].hex()


def derived(key: bytes, salt: bytes, context: bytes) -> bytes:
    """A key for one purpose only (HKDF-SHA256, RFC 5869)."""
    return HKDF(hashes.SHA256(), KEY_SIZE, salt or None, context).derive(key)


# --- single messages --------------------------------------------------------------------------------------


def seal_message(key: bytes, message: bytes, context: bytes, random: Random) -> bytes:
    """Nonce, ciphertext and tag. For at most 2^32 messages under one key, as the nonce is random."""
    nonce = random.getrandbits(8 * NONCE_SIZE).to_bytes(NONCE_SIZE, "big")
    return nonce + AESGCM(key).encrypt(nonce, message, context)


def unseal_message(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """What was sealed with this key in this context. Raises Damaged."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], context)
    except (InvalidTag, ValueError) as error:
        raise Damaged("its authentication tag is wrong") from error


# --- streams ----------------------------------------------------------------------------------------------


class Sealer:
    """Seals one stream: write `head`, what each `add` returns, and what `finish` returns."""

    def __init__(self, key: bytes, context: bytes = b"", random: Random | None = None) -> None:
        salt = (random or system_random()).getrandbits(8 * SALT_SIZE).to_bytes(SALT_SIZE, "big")
        self.head = _HEAD.pack(MAGIC, bytes.fromhex(key_id(key)), salt)
        self._aead = AESGCM(derived(key, salt, context))
        self._buffer = bytearray()
        self._number = 0

    def add(self, data: bytes) -> bytes:
        """Take bytes of the stream; returns the chunks that became full, often none."""
        self._buffer += data
        sealed = []
        while len(self._buffer) > CHUNK:  # a full last chunk is left to finish, which marks it
            sealed.append(self._chunk(bytes(self._buffer[:CHUNK]), last=False))
            del self._buffer[:CHUNK]
        return b"".join(sealed)

    def finish(self) -> bytes:
        """The last chunk."""
        return self._chunk(bytes(self._buffer), last=True)

    def _chunk(self, data: bytes, last: bool) -> bytes:
        head = _CHUNK.pack(len(data), last)
        sealed = self._aead.encrypt(_nonce(self._number), data, head)
        self._number += 1
        return head + sealed


def seal(
    chunks: Iterable[bytes], key: bytes, context: bytes = b"", random: Random | None = None
) -> Iterator[bytes]:
    """The chunks as one sealed stream, in pieces of about a megabyte.

    `context` says what it is ("shoal backup 1", with the cluster's id, say); who unseals must say the same.
    """
    sealer = Sealer(key, context, random)
    yield sealer.head
    for chunk in chunks:
        if sealed := sealer.add(chunk):
            yield sealed
    yield sealer.finish()


def unseal(read: Callable[[int], bytes], key: bytes, context: bytes = b"") -> Iterator[bytes]:
    """What was sealed, in pieces of about a megabyte, each authenticated before it is given out.

    `read(n)` gives at most n bytes, none at the end: a file's method. Raises WrongKey or Damaged, the latter
    also when the stream ends early or goes on after its end: only at the iterator's end was all of it there.
    """
    try:
        magic, sealed_with, salt = _HEAD.unpack(exactly(read, _HEAD.size))
    except struct.error as error:
        raise Damaged("it is too short to be a sealed file") from error
    if magic != MAGIC:
        raise Damaged("it is not a sealed file, or its first bytes are damaged")
    if sealed_with.hex() != key_id(key):
        raise WrongKey(f"it is sealed with key {sealed_with.hex()}, and the key given is {key_id(key)}")
    aead = AESGCM(derived(key, salt, context))
    number, last = 0, False
    while not last:
        head = exactly(read, _CHUNK.size)
        if len(head) < _CHUNK.size:
            raise Damaged(f"it ends early, after {number} chunks")
        length, last = _CHUNK.unpack(head)
        if length > CHUNK:
            raise Damaged(f"chunk {number} is damaged")
        try:
            chunk = aead.decrypt(_nonce(number), exactly(read, length + TAG_SIZE), head)
        except (InvalidTag, ValueError) as error:
            raise Damaged(f"chunk {number} is damaged or cut off, or it is of something else") from error
        if chunk:
            yield chunk
        number += 1
    if read(1):
        raise Damaged("there are bytes behind its end")


def sealed_with(head: bytes) -> str | None:
    """The id of the key that a stream with these first bytes is sealed with; None for something else."""
    if len(head) < _HEAD.size or not head.startswith(MAGIC):
        return None
    found: bytes = _HEAD.unpack(head[: _HEAD.size])[1]
    return found.hex()


HEAD_SIZE = _HEAD.size
"""Bytes that `sealed_with` needs."""


def exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """Read until there are so many bytes, or the end."""
    data = read(size)
    while len(data) < size and (more := read(size - len(data))):
        data += more
    return data


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_SIZE, "big")
