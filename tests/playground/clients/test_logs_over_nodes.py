"""`docker service logs` over several nodes, every flag; what if one of them is dead; `docker events`."""

import json
import re
import subprocess
import time
from datetime import UTC, datetime

import pytest

from tests.playground.clients.coverage import covers
from tests.support.cluster import Cluster, docker_cli, eventually

pytestmark = pytest.mark.playground

FIVE = "for i in 1 2 3 4 5; do echo line $i of $(hostname); done; exec sleep infinity"
TICK = "i=0; while :; do i=$((i+1)); echo tick $i of $(hostname); sleep 0.2; done"
SPREAD = ("--mode", "global", "--hostname", "{{.Node.Hostname}}", "--container-label", "team=blue")
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"


@covers("service logs", "--details", "--no-resolve", "--no-task-ids", "--no-trunc", "--raw")
@covers("service logs", "--since", "--tail", "--timestamps")
def test_flags(cluster: Cluster) -> None:
    label = (
        "--log-driver",
        "json-file",
        "--log-opt",
        "labels=team",
        "--env",
        "TIER=front",
        "--log-opt",
        "env=TIER",
    )
    tasks = {
        cluster.host_of(t): t for t in cluster.run("web", *SPREAD, *label, "--", "sh", "-c", FIVE, replicas=3)
    }
    eventually("all have written", lambda: cluster.logs("web").count("line 5") == 3)

    def lines(*flags: str, host: str = "host1") -> list[str]:
        return cluster.docker("service", "logs", *flags, "web", host=host).splitlines()

    def names(found: list[str]) -> set[str]:
        return {re.split(r" +\| ", line)[0] for line in found}

    ids = {host: task["ID"] for host, task in tasks.items()}
    nodes = {host: task["NodeID"] for host, task in tasks.items()}
    for host in cluster.hosts:  # every manager tells the same
        assert names(lines(host=host)) == {f"web.{nodes[h]}.{ids[h][:12]}@{h}" for h in ids} or names(
            lines(host=host)
        ) == {f"web.0.{ids[h][:12]}@{h}" for h in ids}
    assert {name.rpartition("@")[2] for name in names(lines("--no-resolve"))} == set(nodes.values())
    assert all(ids[h] in str(names(lines("--no-trunc"))) for h in ids)
    assert not any(id[:12] in str(names(lines("--no-task-ids"))) for id in ids.values())
    assert sorted(lines("--raw", "--tail", "1")) == [f"line 5 of {h}" for h in cluster.hosts]
    stamped = lines("--raw", "--timestamps", "--tail", "2")
    assert len(stamped) == 6
    assert all(re.fullmatch(rf"{STAMP} line [45] of host\d", line) for line in stamped)
    last = max(line.split()[0] for line in stamped)
    assert lines("--since", str(time.time() + 60)) == []
    assert len(lines("--since", last)) < 15
    assert len(lines("--since", "1h")) == 15
    detailed = lines("--raw", "--details", "--tail", "1")
    assert all("TIER=front" in line and "team=blue" in line for line in detailed), detailed
    one = cluster.docker("service", "logs", "--raw", ids["host2"], host="host3").splitlines()
    assert one == [f"line {i} of host2" for i in range(1, 6)]


@covers("service logs", "--follow", "--tail", "--raw")
def test_a_dead_node_is_named_and_holds_up_nothing(fragile: Cluster) -> None:
    fragile.run("web", *SPREAD, "--", "sh", "-c", TICK, replicas=3)
    eventually("all have written", lambda: all(f"of {h}" in fragile.logs("web") for h in fragile.hosts))
    fragile.attempt("service", "logs", "--follow=false", "web")
    command = [docker_cli() or "docker", "--host", fragile.playground.host("host1").docker_host]
    command += ["service", "logs", "--follow", "--raw", "--tail", "0", "web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            while "host3" not in following.stdout.readline():
                pass
            fragile.playground.kill("host3")
            # The others' lines go on, long after the dead node's last.
            ticks = 0
            while ticks < 40:
                line = following.stdout.readline()
                assert line, "the stream ended"
                ticks += "host2" in line
        finally:
            following.kill()
    said = fragile.attempt("service", "logs", "--raw", "--tail", "3", "web", timeout=30)
    for host in ("host1", "host2"):
        assert said.stdout.count(f"of {host}") == 3
    dead = fragile.nodes()["host3"]["ID"]
    assert "incomplete log stream" in said.stderr
    assert "host3" in said.stderr or dead in said.stderr


def test_events_with_every_filter(cluster: Cluster) -> None:
    begun = datetime.now(UTC).isoformat()
    service = cluster.create("web", "--replicas", "0", "--label", "team=blue")
    cluster.create("other", "--replicas", "0")
    secret = cluster.docker("secret", "create", "key", "-", stdin="x")
    config = cluster.docker("config", "create", "settings", "-", stdin="x")
    network = cluster.docker("network", "create", "--driver", "overlay", "inner")
    node = cluster.nodes()["host2"]["ID"]
    cluster.docker("node", "update", "--label-add", "x=1", "host2")
    cluster.docker("node", "update", "--label-rm", "x", "host2")
    cluster.docker("service", "rm", "other")
    until = datetime.now(UTC).isoformat()

    def told(*filters: str, host: str = "host3") -> list[tuple[str, str, str]]:
        words = [word for each in filters for word in ("--filter", each)]
        out = cluster.docker(
            "events", "--since", begun, "--until", until, *words, "--format", "{{json .}}", host=host
        )
        events = [json.loads(line) for line in out.splitlines()]
        return [(event["Type"], event["Action"], event["Actor"]["ID"]) for event in events]

    assert told(f"service={service}", "event=create") == [("service", "create", service)]
    assert told("service=web", "event=create") == [("service", "create", service)]
    assert told("type=service", "event=remove")[0][:2] == ("service", "remove")
    assert told(f"secret={secret}") == [("secret", "create", secret)]
    assert told(f"config={config}") == [("config", "create", config)]
    assert told(f"network={network}", "event=create") == [("network", "create", network)]
    assert told(f"node={node}", "event=update") == [("node", "update", node)] * 2
    assert {each[0] for each in told("scope=swarm")} == {"service", "secret", "config", "network", "node"}
    assert told("scope=swarm", "type=secret", "type=config") == [
        ("secret", "create", secret),
        ("config", "create", config),
    ]
