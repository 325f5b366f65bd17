"""What happened, in order: hashed, so that two runs can be compared, and readable when one fails."""

import hashlib
import logging
from collections import deque

from cluster.seams import SECOND
from tests.simulator.loop import PROCESS, START, VirtualLoop

KEPT = 2000


class Story:
    """Notes with their virtual time. `verbose` also keeps what the code logs."""

    def __init__(self, loop: VirtualLoop, verbose: bool = False) -> None:
        self._loop = loop
        self.verbose = verbose
        self.lines: deque[str] = deque(maxlen=None if verbose else KEPT)
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def seconds(self) -> float:
        """Virtual seconds since the beginning."""
        return (self._loop.now - START) / SECOND

    def note(self, who: str, text: str) -> None:
        """Something that belongs to the story."""
        self._hash.update(f"{self._loop.now} {who} {text}\n".encode())
        self._say(who, text)

    def debug(self, who: str, text: str) -> None:
        """Something that helps to understand it."""
        if self.verbose:
            self._say(who, "  " + text)

    def _say(self, who: str, text: str) -> None:
        self.lines.append(f"{self.seconds:9.3f}  {who:<12} {text}")

    def traffic(self, data: bytes) -> None:
        """Bytes that arrived: they belong to the hash."""
        self._hash.update(self._loop.now.to_bytes(8, "big") + data)

    def digest(self) -> str:
        """The trace so far."""
        return self._hash.hexdigest()


class StoryHandler(logging.Handler):
    """Puts what Shoal logs into the story."""

    def __init__(self, story: Story) -> None:
        super().__init__(logging.DEBUG)
        self._story = story

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get()
        extra = {
            key: value
            for key, value in record.__dict__.items()
            if key not in _STANDARD and not key.startswith("_")
        }
        words = " ".join(f"{key}={value}" for key, value in extra.items())
        text = f"{record.levelname.lower()} {record.getMessage()} {words}".rstrip()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" [{record.exc_info[1]!r}]"
        self._story.debug(process.name if process else "-", text)


_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
