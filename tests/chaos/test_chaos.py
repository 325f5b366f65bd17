"""`make chaos`, short: every kind of fault once, and a few more."""

import random
import secrets
import select
import signal
import subprocess
import time

import pytest

from tests.chaos.arena import Arena, arena
from tests.chaos.faults import Faults
from tests.chaos.run import KEPT, Run
from tests.chaos.traffic import TIMEOUT, body_of
from tests.chaos.wire import Api
from tests.support.cluster import docker_cli

SEED = "ci"
MORE_SECONDS = 5.0

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
        _docker_events_fails_when_events_are_lost(place)
        _an_engine_in_no_cluster_streams_nothing(place)


def _docker_events_fails_when_events_are_lost(place: Arena) -> None:
    """The manager is killed under `docker events`, which says so and ends with an error."""
    docker = docker_cli()
    if docker is None:
        return  # tests/unit/daemon/test_events_api.py has it without the command
    host = place.hosts[0]
    command = [docker, "--host", place.place.host(host).docker_host, "events", "--filter", "type=config"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as events:
        assert events.stdout is not None
        api = Api(place.socket(host), TIMEOUT)
        while not select.select([events.stdout], [], [], 0.2)[0]:  # until the stream is open
            api.call("POST", "/configs/create", body_of("config", secrets.token_hex(8), ""))
        place.signal(host, "manager", signal.SIGKILL)
        output, _ = events.communicate(timeout=60)
    assert events.returncode != 0
    assert "config create" in output
    assert "daemon events-lost" in output


def _an_engine_in_no_cluster_streams_nothing(place: Arena) -> None:
    """The stream opens, stays empty, and ends when it was told to."""
    host = place.hosts[-1]
    api = Api(place.socket(host), TIMEOUT)
    assert api.call("POST", "/swarm/leave?force=1").status == 200
    assert api.call("GET", "/events?until=1").content is None
