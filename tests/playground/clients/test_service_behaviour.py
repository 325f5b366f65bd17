"""The flags of `docker service create` that say how a service behaves.

One service for each kind of behaviour, all created at once, so that they take their time together.
"""

import itertools
import re
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.playground.clients.coverage import covers
from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground

SLEEP = ("busybox", "sleep", "infinity")
CREATED = {
    "crashing": (
        *("--restart-condition", "on-failure", "--restart-delay", "100ms", "--restart-max-attempts", "2"),
        *("--restart-window", "1m", "busybox", "sh", "-c", "exit 3"),
    ),
    "finished": ("--restart-condition", "on-failure", "busybox", "true"),
    "ill": (
        *("--health-cmd", "echo probed; test -e /tmp/well", "--health-interval", "300ms"),
        *("--health-start-period", "2m", "--health-start-interval", "100ms"),
        *("--health-timeout", "2s", "--health-retries", "2", *SLEEP),
    ),
    "slow": (
        *("--health-cmd", "sleep 9", "--health-interval", "100ms", "--health-timeout", "200ms"),
        *("--health-retries", "1", "--restart-condition", "none", *SLEEP),
    ),
    "hungry": ("--reserve-memory", "900g", *SLEEP),
    "busy": ("--reserve-cpu", "900", *SLEEP),
    "few": ("--replicas", "4", "--replicas-max-per-node", "1", *SLEEP),
    "spread": (
        *("--replicas", "4", "--placement-pref", "spread=node.labels.zone"),
        *("--constraint", "node.labels.zone!=none", *SLEEP),
    ),
    "screen": ("--tty", "--network", "name=flags,alias=shop", "--endpoint-mode", "dnsrr", *SLEEP),
    "rolling": (
        *("--replicas", "3", "--update-parallelism", "0", "--update-delay", "0s"),
        *("--update-monitor", "300ms"),
        *("--update-failure-action", "rollback", "--update-max-failure-ratio", "0.4"),
        *("--update-order", "start-first", "--rollback-parallelism", "1", "--rollback-delay", "300ms"),
        *("--rollback-monitor", "200ms", "--rollback-order", "start-first"),
        *("--rollback-failure-action", "continue", "--rollback-max-failure-ratio", "0.5"),
        *("--stop-grace-period", "300ms", *SLEEP),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def services(session_cluster: Cluster) -> Iterator[Cluster]:
    cluster = session_cluster
    zones = {"host1": "a", "host2": "a", "host3": "b"}
    try:
        for host, zone in zones.items():
            cluster.docker("node", "update", "--label-add", f"zone={zone}", host)
        cluster.docker("network", "create", "--driver", "overlay", "flags")
        for name, words in CREATED.items():
            grace = () if "--stop-grace-period" in words else ("--stop-grace-period", "200ms")
            cluster.docker(
                "service", "create", "--detach", "--no-resolve-image", "--name", name, *grace, *words
            )
        yield cluster
    finally:
        cluster.clear()
        for host in zones:
            cluster.docker("node", "update", "--label-rm", "zone", host)


def when(text: str) -> float:
    """A time of the API, in seconds."""
    return datetime.fromisoformat(re.sub(r"\.(\d{6})\d*Z", r".\1+00:00", text)).timestamp()


@covers(
    "service create",
    *("--restart-condition", "--restart-delay", "--restart-max-attempts", "--restart-window"),
)
def test_restarts(services: Cluster) -> None:
    states = eventually(
        "the third attempt has failed",
        lambda: (
            (found := [t["Status"]["State"] for t in services.tasks("crashing")]).count("failed") == 3
            and found
        ),
    )
    assert states == ["failed"] * 3
    ends = [when(task["Status"]["Timestamp"]) for task in services.tasks("crashing")]
    assert all(later - earlier >= 0.1 for earlier, later in itertools.pairwise(ends))
    assert [t["Status"]["State"] for t in services.tasks("finished")] == ["complete"]


@covers(
    "service create",
    *("--health-cmd", "--health-interval", "--health-start-period", "--health-start-interval"),
    *("--health-timeout", "--health-retries"),
)
def test_health(services: Cluster) -> None:
    """A task runs once it is healthy. After that `retries` failures in a row, `interval` apart, end it."""
    cluster = services
    eventually("it starts", lambda: [t for t in cluster.tasks_in("ill", "starting")])
    (task,) = cluster.tasks_in("ill", "starting")
    health = eventually("two probes in the start period", lambda: probes(cluster, task, 2))
    assert health["Status"] == "starting"
    assert health["Log"][0]["Output"] == "probed\n"
    assert 0.1 <= when(health["Log"][1]["Start"]) - when(health["Log"][0]["End"]) < 5.0
    cluster.enter(task, "touch /tmp/well")
    cluster.running("ill", 1)
    cluster.enter(task, "rm /tmp/well")
    cluster.replaced_by("ill", task)
    # In the new one's own start period nothing counts.
    eventually("another is starting", lambda: cluster.tasks_in("ill", "starting"))
    log = cluster.container(task)["State"]["Health"]["Log"]
    failures = [probe for probe in log if probe["ExitCode"] and when(probe["Start"]) > when(log[0]["End"])]
    assert when(failures[-1]["Start"]) - when(failures[-2]["End"]) >= 0.3
    slow = eventually(
        "a probe that takes too long fails it",
        lambda: [t for t in cluster.tasks("slow") if t["Status"]["State"] == "failed"],
    )
    assert "unhealthy" in slow[0]["Status"]["Err"]


def probes(cluster: Cluster, task: Json, count: int) -> Json | None:
    """The container's health once it has been probed so often."""
    health: Json = cluster.container(task)["State"]["Health"]
    return health if len(health["Log"]) >= count else None


@covers("service create", "--reserve-memory", "--reserve-cpu", "--replicas-max-per-node")
def test_what_does_not_fit_waits(services: Cluster) -> None:
    assert "insufficient resources on 3 nodes" in services.complaint("hungry")
    assert "insufficient resources on 3 nodes" in services.complaint("busy")
    assert services.spread(services.running("few", 3)) == ["host1", "host2", "host3"]
    assert "max replicas per node limit exceed" in services.complaint("few")


@covers("service create", "--placement-pref")
def test_spread(services: Cluster) -> None:
    """Two zones, two tasks each, though one zone has two hosts."""
    assert services.spread(services.running("spread", 4)) == ["host1", "host2", "host3", "host3"]


@covers("service create", "--tty", "--network", "--endpoint-mode")
def test_terminal_and_network(services: Cluster) -> None:
    (task,) = services.running("screen", 1)
    assert services.enter(task, "readlink /proc/1/fd/0").startswith("/dev/pts/")
    address = task["NetworksAttachments"][0]["Addresses"][0].partition("/")[0]
    for name in ("shop", "screen", "tasks.screen"):
        assert address in services.enter(task, f"nslookup {name} 127.0.0.11 | grep -A9 Name")
    assert "VirtualIPs" not in services.inspect("service", "screen").get("Endpoint", {})


@covers(
    "service create",
    *("--update-parallelism", "--update-delay", "--update-monitor", "--update-order"),
    *("--update-failure-action", "--update-max-failure-ratio"),
    *("--rollback-parallelism", "--rollback-delay", "--rollback-monitor", "--rollback-order"),
    *("--rollback-failure-action", "--rollback-max-failure-ratio"),
)
@covers("service rollback", "--detach", "--quiet")
def test_updates_and_rollbacks(services: Cluster) -> None:
    cluster = services
    old = cluster.running("rolling", 3)
    cluster.update("rolling", "--env-add", "V=2")
    eventually("it is updated", lambda: update_state(cluster) == "completed")
    new = cluster.running("rolling", 3)
    last_start = max(when(task["CreatedAt"]) for task in new)
    ended = eventually("the old ones have ended", lambda: ended_of(cluster, old))
    # All at once, and the old ones ended only then.
    assert min(when(task["Status"]["Timestamp"]) for task in ended) >= last_start  # start first

    assert cluster.docker("service", "rollback", "--detach", "--quiet", "rolling") == "rolling"
    eventually("it is rolled back", lambda: update_state(cluster) == "rollback_completed")
    back = cluster.running("rolling", 3)
    assert {None} == {t["Spec"]["ContainerSpec"].get("Env") for t in back}
    starts = sorted(when(task["CreatedAt"]) for task in back)  # one after the other
    assert all(later - earlier >= 0.3 for earlier, later in itertools.pairwise(starts))

    cluster.update("rolling", "--env-add", "V=3", "--args", "false")
    eventually("it is rolled back by itself", lambda: automatic(cluster))
    back = cluster.running("rolling", 3)
    assert {None} == {t["Spec"]["ContainerSpec"].get("Env") for t in back}
    spec = cluster.inspect("service", "rolling")["Spec"]
    assert spec["RollbackConfig"]["FailureAction"] == "continue"
    assert (spec["UpdateConfig"]["MaxFailureRatio"], spec["RollbackConfig"]["MaxFailureRatio"]) == (0.4, 0.5)


def ended_of(cluster: Cluster, old: list[Json]) -> list[Json]:
    """These tasks, once none of them runs any more."""
    ids = {task["ID"] for task in old}
    found = [task for task in cluster.tasks("rolling") if task["ID"] in ids]
    return [] if any(task["Status"]["State"] == "running" for task in found) else found


def update_state(cluster: Cluster) -> str:
    """The state of the service's update."""
    return str(cluster.inspect("service", "rolling").get("UpdateStatus", {}).get("State"))


def automatic(cluster: Cluster) -> bool:
    """Whether an update has failed and was rolled back since."""
    status = cluster.inspect("service", "rolling")["UpdateStatus"]
    return status["State"] == "rollback_completed" and any(
        task["Status"]["State"] == "failed" for task in cluster.tasks("rolling")
    )


@covers("service create", "--detach", "--quiet")
def test_the_command_waits_unless_told_not_to(services: Cluster) -> None:
    words = ("--no-resolve-image", "--stop-grace-period", "200ms")
    detached = services.docker("service", "create", "--detach", "--name", "left", *words, *SLEEP)
    assert detached == services.inspect("service", "left")["ID"]
    quiet = services.docker("service", "create", "--quiet", "--name", "quiet", *words, *SLEEP)
    assert quiet == services.inspect("service", "quiet")["ID"]  # no word of progress, yet it has waited:
    assert len(services.tasks_in("quiet", "running")) == 1
