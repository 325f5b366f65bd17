"""Checksummed frames: what one sync made durable, as one unit in a log file.

Sequence number, length, checksum of the header, checksum of the payload; the payload is a list of records.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

_MAGIC = b"SHfr"
_FRAME = struct.Struct("<4sQI")  # magic, sequence number, payload length
_SUMS = struct.Struct("<II")  # crc32 of the 16 bytes before, crc32 of the payload
HEADER_SIZE = _FRAME.size + _SUMS.size
_LENGTH = struct.Struct("<I")


def encode_frame(sequence: int, records: Iterable[bytes]) -> bytes:
    """The records as one frame."""
    parts = []
    for record in records:
        parts.append(_LENGTH.pack(len(record)))
        parts.append(record)
    payload = b"".join(parts)
    header = _FRAME.pack(_MAGIC, sequence, len(payload))
    return header + _SUMS.pack(zlib.crc32(header), zlib.crc32(payload)) + payload


def records_of(payload: bytes) -> Iterator[bytes]:
    """The records of a frame's payload."""
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
