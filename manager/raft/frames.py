"""Checksummed frames: what one sync made durable, as one unit in a log file.

Sequence number, length, checksum of the header, checksum of the payload; the payload is a list of records,
encrypted. The checksums are of what is on disk: whether a frame is whole is known without any key, and a
whole frame that does not decrypt was not torn by a crash.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.seams import Random
from manager.keys.sealing import NONCE_SIZE, SALT_SIZE, derived
from manager.raft.keyring import CLEAR, SEALED_LOG, DataKey

_MAGIC = b"SHfr"
_FRAME = struct.Struct("<4sQI")  # magic, sequence number, payload length
_SUMS = struct.Struct("<II")  # crc32 of the 16 bytes before, crc32 of the payload
HEADER_SIZE = _FRAME.size + _SUMS.size
_LENGTH = struct.Struct("<I")
_SEQUENCE = struct.Struct("<Q")

PLAIN_FILE = CLEAR[0]
"""How a log file begins that an older version wrote, without encryption."""
_SEALED_FILE = struct.Struct(f"<10s8s{SALT_SIZE}sI")  # magic, id of the data key, salt, crc32 of these


class BadHead(Exception):
    """The first bytes of a log file are damaged, or it is none."""


class FrameCipher:
    """Encrypts the payloads of one log file, with a key of its own.

    The nonces are random: after a crash other frames are written under the numbers of torn ones, and no two
    may share a nonce. With at most some 10^5 frames in a file, they never do.
    """

    def __init__(self, key: DataKey, salt: bytes, context: bytes, random: Random) -> None:
        self.key_id = key.id
        self._aead = AESGCM(derived(key.key, salt, context))
        self._random = random
        head = _SEALED_FILE.pack(SEALED_LOG, bytes.fromhex(key.id), salt, 0)[:-4]
        self.head = head + zlib.crc32(head).to_bytes(4, "little")

    @classmethod
    def new(cls, key: DataKey, context: bytes, random: Random) -> "FrameCipher":
        """For a new file, which begins with `head`."""
        return cls(key, random.getrandbits(8 * SALT_SIZE).to_bytes(SALT_SIZE, "big"), context, random)

    def encrypt(self, sequence: int, payload: bytes) -> bytes:
        """Nonce, ciphertext and tag, bound to the frame's number."""
        nonce = self._random.getrandbits(8 * NONCE_SIZE).to_bytes(NONCE_SIZE, "big")
        return nonce + self._aead.encrypt(nonce, payload, _SEQUENCE.pack(sequence))

    def decrypt(self, sequence: int, payload: bytes) -> bytes | None:
        """The payload of the frame with that number; None if it is not authentic."""
        try:
            return self._aead.decrypt(payload[:NONCE_SIZE], payload[NONCE_SIZE:], _SEQUENCE.pack(sequence))
        except (InvalidTag, ValueError):
            return None


def parse_head(data: bytes) -> tuple[int, str, bytes]:
    """Where the first frame of a log file begins, the id of its data key, and its salt.

    The id is empty for a file in clear. Raises BadHead.
    """
    if data.startswith(PLAIN_FILE):
        return len(PLAIN_FILE), "", b""
    if len(data) < _SEALED_FILE.size or not data.startswith(SEALED_LOG):
        raise BadHead
    _, key_id, salt, checksum = _SEALED_FILE.unpack_from(data)
    if zlib.crc32(data[: _SEALED_FILE.size - 4]) != checksum:
        raise BadHead
    return _SEALED_FILE.size, key_id.hex(), salt


def payload_of(records: Iterable[bytes]) -> bytes:
    """A frame's payload, not yet encrypted."""
    parts = []
    for record in records:
        parts.append(_LENGTH.pack(len(record)))
        parts.append(record)
    return b"".join(parts)


def encode_frame(sequence: int, payload: bytes) -> bytes:
    """The payload as a frame."""
    header = _FRAME.pack(_MAGIC, sequence, len(payload))
    return header + _SUMS.pack(zlib.crc32(header), zlib.crc32(payload)) + payload


def records_of(payload: bytes) -> Iterator[bytes]:
    """The records of a frame's decrypted payload."""
    position = 0
    while position < len(payload):
        (length,) = _LENGTH.unpack_from(payload, position)
        position += _LENGTH.size + length
        yield payload[position - length : position]


def whole_frame(data: bytes, offset: int, sequence: int | None = None) -> tuple[int, bytes] | None:
    """Number and payload of the undamaged frame at offset, or None; with that number, if one is given."""
    if offset + HEADER_SIZE > len(data):
        return None
    magic, number, length = _FRAME.unpack_from(data, offset)
    header_sum, payload_sum = _SUMS.unpack_from(data, offset + _FRAME.size)
    if magic != _MAGIC or zlib.crc32(data[offset : offset + _FRAME.size]) != header_sum:
        return None
    payload = data[offset + HEADER_SIZE : offset + HEADER_SIZE + length]
    if len(payload) < length or zlib.crc32(payload) != payload_sum or sequence not in (None, number):
        return None
    return number, payload


def later_frame(data: bytes, offset: int, sequence: int) -> bool:
    """Whether an undamaged frame with a number above sequence lies behind offset."""
    found = data.find(_MAGIC, offset + 1)
    while found != -1:
        frame = whole_frame(data, found)
        if frame is not None and frame[0] > sequence:
            return True
        found = data.find(_MAGIC, found + 1)
    return False
