"""Short pauses of Python's cyclic garbage collector, however large the state is.

A full collection looks at every object with every thread stopped: with 100,000 tasks for so long that the
followers miss the leader's heartbeats and elect another. What survives a long one is the state, which has no
cycles and is freed by reference counts. It is set aside (`gc.freeze`), and later collections look only at
what came since. A cycle that is set aside and dies later is never freed; that happens as seldom as the state
grows by a large part.
"""

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("shoal.garbage")

LONG = 0.02
"""Seconds that a full collection may take before what survived it is set aside."""


class _Watch:
    """Times full collections."""

    def __init__(self) -> None:
        self._begun = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < 2:
            return
        if phase == "start":
            self._begun = time.monotonic()
        elif (taken := time.monotonic() - self._begun) > LONG:
            gc.freeze()
            log.debug("set aside what lives long", extra={"seconds": taken, "objects": gc.get_freeze_count()})


@contextmanager
def no_collections() -> Iterator[None]:
    """While a large state is made: collecting what all stays takes twice as long as making it.

    Where collections are kept short, what was made is set aside at the end.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        if any(isinstance(callback, _Watch) for callback in gc.callbacks):
            gc.freeze()


def keep_collections_short() -> None:
    """Set aside what is there now, and from now on whatever makes a full collection long."""
    gc.collect()
    gc.freeze()
    if not any(isinstance(callback, _Watch) for callback in gc.callbacks):
        gc.callbacks.append(_Watch())
