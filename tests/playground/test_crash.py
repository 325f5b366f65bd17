"""A daemon killed at any moment: every task converges, and nothing of those that ended stays behind."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from shoal.playground.supervisor import DaemonStatus
from tests.support.cluster import Cluster, eventually, playground

pytestmark = pytest.mark.playground

ROUNDS = 10
LOOK = """
import os, pathlib, re, subprocess

def output(*command):
    return subprocess.check_output(command, text=True).splitlines()

for line in output("ip", "-o", "link"):
    print("device", re.match(r"[0-9]+: ([^:@]+)", line)[1])
for line in output("ip", "-o", "addr"):
    print("address", *line.split()[1:4])
for line in output("ip", "neigh", "show", "nud", "permanent"):
    print("neighbour", line.strip())
for line in output("nft", "--stateless", "list", "ruleset"):
    print("rule", line.strip())
for line in pathlib.Path("/proc/DAEMON/mountinfo").read_text().splitlines():
    print("mount", line.split()[4])
for top in ("/run/shoal/bundles", "/run/shoal/containers", "/run/shoal/network", "DATA/containers"):
    for here, directories, files in os.walk(top):
        for name in directories + files:
            print("file", os.path.join(here, name))
for here, directories, _ in os.walk("/sys/fs/cgroup"):
    print(*(f"cgroup {name}" for name in directories if re.fullmatch("[0-9a-f]{64}", name)), sep="\\n")
namespaces = set()
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (process / "cmdline").read_bytes().decode().split("\\0")
        namespaces.add(os.stat(process / "ns/net").st_ino)
    except OSError:
        continue
    if words[0].endswith(("conmon", "crun")) or "sleep" in words[0]:
        print("process", process.name, *words[:1])
print("namespaces", len(namespaces))
"""


@pytest.fixture
def doomed(archive: Path) -> Iterator[Cluster]:
    """Two hosts; the second one's daemon gets killed."""
    with playground(hosts=2, managers=1) as cluster:
        cluster.load(archive)
        yield cluster


def remains(cluster: Cluster, host: str) -> set[str]:
    """All that a task can leave on a host, as words that say what it is."""
    data = str(cluster.playground.host(host).socket.parent / "data")
    script = LOOK.replace("DATA", data).replace("DAEMON", str(daemon_pid(cluster, host)))
    done = cluster.playground.run(host, [sys.executable, "-c", script], 30)
    assert done.returncode == 0, done.stderr
    return {line for line in done.stdout.splitlines() if line}


def daemon_pid(cluster: Cluster, host: str) -> int:
    """The daemon's process in its host; 0 when it does not run."""
    path = cluster.playground.host(host).socket.parent / "daemon.status"
    return msgspec.json.decode(path.read_bytes(), type=DaemonStatus).pid


def sockets(cluster: Cluster, host: str) -> int:
    """How many sockets the daemon holds: two for the name server of each sandbox, one for its rules."""
    script = f"ls -l /proc/{daemon_pid(cluster, host)}/fd | grep -c socket:"
    return int(cluster.playground.run(host, ["sh", "-c", script], 30).stdout)


def end_daemon(cluster: Cluster, host: str) -> None:
    """SIGKILL: no handler runs, nothing is written any more."""
    cluster.playground.run(host, ["kill", "-KILL", str(daemon_pid(cluster, host))], 10)
    eventually("the daemon is dead", lambda: not daemon_pid(cluster, host))


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
