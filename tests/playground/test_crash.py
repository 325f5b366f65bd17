"""A daemon killed at any moment: every task converges, and nothing of those that ended stays behind."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, eventually, playground
from tests.support.remains import daemon_pid, end_daemon, remains

pytestmark = pytest.mark.playground

ROUNDS = 10


@pytest.fixture
def doomed(archive: Path) -> Iterator[Cluster]:
    """Two hosts; the second one's daemon gets killed."""
    with playground(hosts=2, managers=1) as cluster:
        cluster.load(archive)
        yield cluster


def sockets(cluster: Cluster, host: str) -> int:
    """How many sockets the daemon holds: two for the name server of each sandbox, one for its rules."""
    script = f"ls -l /proc/{daemon_pid(cluster, host)}/fd | grep -c socket:"
    return int(cluster.playground.run(host, ["sh", "-c", script], 30).stdout)


def emptied(cluster: Cluster) -> None:
    cluster.clear()
    eventually("no tasks are left", lambda: not cluster.client().api.tasks())


def settle(cluster: Cluster, host: str, service: str, count: int) -> None:
    """Wait until the containers that run on a host are exactly the service's running tasks."""
    state: tuple[set[str], set[str]] = set(), set()

    def settled() -> bool:
        nonlocal state
        tasks = cluster.tasks_in(service, "running")
        wanted = {task["Status"]["ContainerStatus"]["ContainerID"] for task in tasks}
        state = wanted, {c["Id"] for c in cluster.client(host).api.containers()}
        return len(wanted) == count and wanted == state[1]

    try:
        eventually("exactly the tasks run", settled)
    except AssertionError as error:
        raise AssertionError(f"{error}: missing {state[0] - state[1]}, stray {state[1] - state[0]}") from None


def test_killed_at_any_moment(doomed: Cluster) -> None:
    place, victim = doomed.playground, "host2"
    doomed.run("warm", "--constraint", f"node.hostname=={victim}", "-p", "8070:80", replicas=2)
    emptied(doomed)
    place.restart_daemon(victim)
    doomed.wait_ready(1)
    before, open_before = remains(doomed, victim), sockets(doomed, victim)
    chance = random.Random(7)
    doomed.docker("network", "create", "--driver", "overlay", "back")
    doomed.run("sample", "--constraint", f"node.hostname=={victim}", "--network", "back", "-p", "8070:80")
    kinds = {word.split()[0] for word in remains(doomed, victim) - before}
    assert kinds >= {"device", "neighbour", "rule", "mount", "file", "cgroup", "process", "namespaces"}
    doomed.docker("service", "rm", "sample")
    for number in range(ROUNDS):
        name = f"web{number}"
        words = ["--constraint", f"node.hostname=={victim}", "--network", "back", "-p", "8080:80"]
        words += ["--mount", "type=tmpfs,target=/scratch", "--restart-delay", "100ms"]
        doomed.create(name, "--replicas", "6", *words)
        if number % 2:
            # While tasks start and others stop.
            doomed.running(name, 6)
            doomed.update(name, "--env-add", "A=1", "--update-parallelism", "3", "--update-delay", "0s")
        place.run(victim, ["sleep", str(chance.random())], 10)
        end_daemon(doomed, victim)
        if number % 3 == 2:
            doomed.docker("service", "rm", name)
            doomed.create(name, "--replicas", "2", *words)
        place.restart_daemon(victim)
        expected = 2 if number % 3 == 2 else 6
        doomed.running(name, expected)
        settle(doomed, victim, name, expected)
        doomed.docker("service", "rm", name)
        eventually("its containers go", lambda: not doomed.client(victim).api.containers(all=True))
    emptied(doomed)
    eventually("nothing is left", lambda: not remains(doomed, victim) - before, seconds=20)
    assert sockets(doomed, victim) <= open_before + 4  # the tests' own connections


def test_power_loss_in_the_middle(doomed: Cluster) -> None:
    place, victim = doomed.playground, "host2"
    chance = random.Random(11)
    place.restart_daemon(victim)
    doomed.wait_ready(1)
    before = {word for word in remains(doomed, victim) if not word.startswith("process")}
    for number in range(3):
        name = f"web{number}"
        words = ["--constraint", f"node.hostname=={victim}", "--restart-delay", "100ms"]
        doomed.create(name, "--replicas", "6", "-p", "8080:80", *words)
        place.run(victim, ["sleep", str(chance.random())], 10)
        place.kill(victim)
        place.start(victim)
        doomed.running(name, 6)
        doomed.docker("service", "rm", name)
        eventually("its containers go", lambda: not doomed.client(victim).api.containers(all=True))
    emptied(doomed)
    eventually("nothing is left", lambda: not remains(doomed, victim) - before, seconds=20)
