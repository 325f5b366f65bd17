"""`docker service logs` and `docker logs`."""

import re
import subprocess

import pytest

from tests.support.cluster import Cluster, docker_cli, eventually

pytestmark = pytest.mark.playground

COUNT = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done"
TEN = "for i in $(seq 10); do echo line $i; done; echo oops >&2; sleep infinity"


def test_lines_of_all_tasks_with_their_origin(cluster: Cluster) -> None:
    tasks = cluster.run("web", "--", "sh", "-c", TEN, replicas=3)
    eventually("all have written", lambda: cluster.logs("web").count("line 10") == 3)
    lines = cluster.docker("service", "logs", "web").splitlines()
    names = {re.split(r" +\| ", line)[0] for line in lines}
    assert names == {f"web.{t['Slot']}.{t['ID'][:12]}@{cluster.host_of(t)}" for t in tasks}
    assert sum(line.endswith("| line 7") for line in lines) == 3
    one = cluster.docker("service", "logs", "--raw", tasks[0]["ID"])  # of one task
    assert one.splitlines() == [f"line {i}" for i in range(1, 11)]


def test_streams_are_kept_apart(cluster: Cluster) -> None:
    cluster.run("web", "--", "sh", "-c", TEN)
    eventually("it has written", lambda: "line 10" in cluster.logs("web"))
    done = eventually(
        "to both", lambda: (d := cluster.attempt("service", "logs", "--raw", "web")).stderr and d
    )
    assert done.stderr == "oops\n"
    assert done.stdout.count("line") == 10


def test_tail_and_timestamps(cluster: Cluster) -> None:
    cluster.run("web", "--", "sh", "-c", TEN)
    eventually("it has written", lambda: "line 10" in cluster.logs("web"))
    eventually("all", lambda: "oops" in cluster.attempt("service", "logs", "--raw", "web").stderr)
    assert cluster.logs("web", "--tail", "3").splitlines() == ["line 9", "line 10"]  # the third is on stderr
    stamped = cluster.logs("web", "--timestamps", "--tail", "2")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 10", stamped)


def test_follow_goes_on_until_stopped(cluster: Cluster) -> None:
    cluster.run("web", "--", "sh", "-c", COUNT)
    docker_host = cluster.playground.host("host2").docker_host
    command = [docker_cli() or "docker", "--host", docker_host, "service", "logs", "--follow", "--raw", "web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline().strip() for _ in range(15)]
        finally:
            process.kill()
    assert lines == [f"line {i}" for i in range(1, 16)]


def test_follow_shows_tasks_that_come_later(cluster: Cluster) -> None:
    cluster.run("web", "--", "sh", "-c", COUNT)
    docker_host = cluster.playground.host("host1").docker_host
    command = [docker_cli() or "docker", "--host", docker_host, "service", "logs", "--follow", "web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert "web.1." in process.stdout.readline()
            cluster.docker("service", "scale", "--detach", "web=2")
            seen = ""
            while "web.2." not in seen:
                seen = process.stdout.readline()
                assert seen
        finally:
            process.kill()


def test_logs_of_a_container_on_its_host(cluster: Cluster) -> None:
    (task,) = cluster.run("web", "--", "sh", "-c", TEN)
    host, id = cluster.host_of(task), task["Status"]["ContainerStatus"]["ContainerID"]
    eventually("it has written", lambda: "line 10" in cluster.docker("logs", id, host=host))
    assert cluster.docker("logs", "--tail", "4", id, host=host).splitlines()[0] == "line 8"


def test_logs_of_nothing_is_refused(cluster: Cluster) -> None:
    assert "no such task or service: nothing" in cluster.refused("service", "logs", "nothing")
