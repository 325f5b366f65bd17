"""`make chaos`, short: every kind of fault once, and a few more."""

import random
import time

import pytest

from tests.chaos.arena import Arena, arena
from tests.chaos.faults import Faults
from tests.chaos.run import KEPT, Run
from tests.chaos.traffic import TIMEOUT
from tests.chaos.wire import Api

SEED = "ci"
MORE_SECONDS = 10.0

pytestmark = [pytest.mark.playground, pytest.mark.timeout(300)]


def test_every_kind_of_fault() -> None:
    """The checkers find nothing, and they had something to look at."""
    with arena() as place:
        run = Run(place, SEED, tasks=False)
        faults = Faults(place, random.Random(SEED), run.history)
        begun = time.monotonic()
        run.start()
        for fault in faults.kinds:
            faults.one(fault)
        faults.run(time.monotonic() + MORE_SECONDS)
        faults.heal()
        result = run.judge(time.monotonic() - begun, faults.counts)
        print(result.summary())
        if result.violations:
            result.keep(place, KEPT / SEED)
        assert not result.violations, result.summary()
        assert (result.lost, result.duplicated) == (0, 0)
        assert run.acknowledged() > 50
        assert sum(len(stream.changes) for stream in run.history.streams) > 50
        _a_worker_or_lone_engine_streams_nothing(place)


def _a_worker_or_lone_engine_streams_nothing(place: Arena) -> None:
    """After `swarm leave`, a stream opens, stays empty and ends when it was told to."""
    host = place.hosts[-1]
    api = Api(place.socket(host), TIMEOUT)
    assert api.call("POST", "/swarm/leave?force=1").status == 200
    assert api.call("GET", "/events?until=1").content is None
