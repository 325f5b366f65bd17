"""How old this manager's own state is, for reads that don't wait for the leader.

A follower notes the time and asks its leader for a confirmed index (ReadIndex). Once it has applied that
index it has every write that was acknowledged before the time it noted, however long the question and the
answer took. So the age is never understated, and only this machine's own monotonic clock counts. The question
travels with an answer to a heartbeat, and the answer with a heartbeat.
"""

from collections import deque

from cluster.seams import MILLISECOND, Clock

ASK_EVERY = 500 * MILLISECOND
"""How often a manager has its state confirmed; the age of a healthy one is hardly more."""
_KEPT = 4096


class Freshness:
    """What has been confirmed. Lives on the state machine's loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # What is pushed out counted less than what follows it: that is newer, and as good once it is applied.
        self._ahead: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._since: int | None = None

    def confirmed(self, index: int, asked_at: int) -> None:
        """All that was acknowledged before asked_at (monotonic, ns) is in the log up to index."""
        self._ahead.append((index, asked_at))

    def age(self, applied: int) -> int | None:
        """Nanoseconds since the state at that index was certainly the newest; None when it never was."""
        while self._ahead and self._ahead[0][0] <= applied:
            _, asked_at = self._ahead.popleft()
            self._since = asked_at if self._since is None else max(self._since, asked_at)
        return None if self._since is None else self._clock.monotonic() - self._since
