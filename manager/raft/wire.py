"""What managers say to each other: msgpack structs in length-prefixed frames. Nothing is ever unpickled."""

import logging
import struct
from typing import get_args

import msgspec

from cluster.codec import UNREADABLE

log = logging.getLogger("shoal.raft.wire")

ALPN = "shoal-raft/1"
MAX_FRAME = 24 << 20
"""Larger than the largest legal message: a batch of entries plus one entry."""

_LENGTH = struct.Struct("<I")


class Message(msgspec.Struct, tag_field="t", tag=str.lower, omit_defaults=True):
    """Base of all messages."""


class Hello(Message):
    """First frame of the dialling side: where it can be dialled back.

    generation: of forced new clusters, as far as the dialler knows; -1 when it is no member (yet), -2 of a
    version that knows neither these nor that members move.
    """

    address: str
    generation: int = -2


class Welcome(Message):
    """First frame of the accepting side: the dialler may speak."""


class Refused(Message):
    """First and last frame of the accepting side: why not.

    generation: not 0 when the dialler was left behind by the forced new cluster of that number.
    """

    reason: str
    generation: int = 0


class RequestVote(Message):
    """Vote for me in this term."""

    term: int
    last_log_index: int
    last_log_term: int


class Vote(Message):
    """You have my vote in this term."""

    term: int


class RequestPreVote(Message):
    """Would you vote for me in this (not yet started) term?"""

    term: int
    last_log_index: int
    last_log_term: int


class PreVote(Message):
    """Whether I would; and my own term."""

    term: int
    granted: bool
    own_term: int


class AppendEntries(Message):
    """Entries that follow (previous_index, previous_term), and how far the leader has committed."""

    term: int
    commit_index: int
    previous_index: int
    previous_term: int
    entries: list[tuple[bytes, int, int]]


class Heartbeat(Message):
    """The leader lives, and has nothing that fits this follower's log right now.

    confirmed: the answer to a Progress that asked: all that was acknowledged before is at most at this index.
    """

    term: int
    asked: int = 0
    confirmed: int = 0


class SnapshotChunk(Message):
    """A piece of the leader's snapshot at `index`, starting at byte `offset` of the file."""

    term: int
    index: int
    offset: int
    data: bytes
    last: bool


class Progress(Message):
    """A follower's answer to its leader in `term`.

    success: the log agrees with the leader's before next_index, durably. reset: send from next_index on.
    full: its disk is; it takes no entries until it has room again.
    asked: not 0 when the follower wants a confirmed index; a time of its own clock that comes back with it.
    """

    term: int
    next_index: int
    reset: bool = False
    success: bool = False
    asked: int = 0
    full: bool = False


class TimeoutNow(Message):
    """Start an election at once: leadership is being handed to you."""

    term: int


class HigherTerm(Message):
    """Your term is over."""

    term: int


class ConfirmLeader(Message):
    """Do you still follow me in this term?"""

    term: int
    round: int


class LeaderConfirmed(Message):
    """I do."""

    term: int
    round: int


AnyMessage = (
    Hello
    | Welcome
    | Refused
    | RequestVote
    | Vote
    | RequestPreVote
    | PreVote
    | AppendEntries
    | Heartbeat
    | SnapshotChunk
    | Progress
    | TimeoutNow
    | HigherTerm
    | ConfirmLeader
    | LeaderConfirmed
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)
_KINDS = {kind.__struct_config__.tag for kind in get_args(AnyMessage)}


def encode(message: Message) -> bytes:
    """The message as one frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class BadFrame(Exception):
    """The peer sent something that isn't a message."""


class _Tag(msgspec.Struct):
    t: str


def _message(frame: bytes) -> AnyMessage | None:
    """The message in a frame; None for one of a kind that only a newer version has (docs/upgrades.md)."""
    try:
        message: AnyMessage = _decoder.decode(frame)
        return message
    except UNREADABLE as error:
        if _kind(frame) in (None, *_KINDS):
            raise BadFrame(str(error)) from error
        log.info("passing over a message that is unknown here", extra={"reason": str(error)})
        return None


def _kind(frame: bytes) -> str | None:
    try:
        return msgspec.msgpack.decode(frame, type=_Tag).t
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class FrameReader:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[AnyMessage]:
        """The messages completed by these bytes. Raises BadFrame."""
        buffer = self._buffer
        buffer += data
        messages: list[AnyMessage] = []
        offset = 0
        while len(buffer) - offset >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if length > MAX_FRAME:
                raise BadFrame(f"a frame of {length} bytes")
            start = offset + _LENGTH.size
            if len(buffer) - start < length:
                break
            message = _message(bytes(buffer[start : start + length]))
            if message is not None:
                messages.append(message)
            offset = start + length
        del buffer[:offset]
        return messages
