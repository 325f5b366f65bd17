"""What the docker command lists and shows: filters, formats, and the flags of ls, ps and inspect."""

from collections.abc import Iterator

import pytest

from tests.playground.clients.coverage import covers
from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

QUIET_SLEEP = ("--detach", "--no-resolve-image", "--stop-grace-period", "200ms")


@pytest.fixture(scope="module")
def stocked(session_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with two of each kind of object, one of them labelled."""
    cluster = session_cluster
    sleep = ("busybox", "sleep", "infinity")
    try:
        for kind in ("secret", "config"):
            cluster.docker(kind, "create", "--label", "team=blue", "first", "-", stdin="1")
            cluster.docker(kind, "create", "second", "-", stdin="2")
        cluster.docker("network", "create", "--driver", "overlay", "--label", "team=blue", "first")
        label = ("--label", "team=blue", "--network", "first")
        cluster.docker("service", "create", *QUIET_SLEEP, "--name", "web", "--replicas", "2", *label, *sleep)
        cluster.docker("service", "create", *QUIET_SLEEP, "--name", "agent", "--mode", "global", *sleep)
        cluster.docker("node", "update", "--label-add", "tier=front", "host1")
        cluster.running("web", 2)
        cluster.running("agent", 3)
        yield cluster
    finally:
        cluster.clear()
        cluster.docker("node", "update", "--label-rm", "tier", "host1")


@covers("service ls", "--filter", "--format", "--quiet")
def test_services(stocked: Cluster) -> None:
    web, agent = (stocked.inspect("service", name)["ID"] for name in ("web", "agent"))
    rows = stocked.docker("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}").splitlines()
    assert rows == ["agent global 3/3", "web replicated 2/2"]
    for text in (f"id={web}", "name=we", "label=team", "label=team=blue", "mode=replicated"):
        assert stocked.docker("service", "ls", "--quiet", "--filter", text) == web[:12]
    assert stocked.docker("service", "ls", "--quiet", "--filter", "mode=global") == agent[:12]


@covers("service ps", "--filter", "--format", "--no-resolve", "--no-trunc", "--quiet")
def test_tasks_of_a_service(stocked: Cluster) -> None:
    tasks = {f"web.{task['Slot']}": task for task in stocked.tasks("web")}
    words = ("service", "ps", "web")
    rows = stocked.docker(*words, "--format", "{{.Name}} {{.Node}} {{.CurrentState}}").splitlines()
    assert {" ".join(row.split()[:3]) for row in rows} == {
        f"{name} {stocked.host_of(task)} Running" for name, task in tasks.items()
    }
    ids = {task["ID"] for task in tasks.values()}
    assert set(stocked.docker(*words, "--quiet", "--no-trunc").split()) == ids
    assert set(stocked.docker(*words, "--quiet").split()) == ids  # the command shortens none
    raw = stocked.docker(*words, "--no-resolve", "--no-trunc", "--format", "{{.Node}}").split()
    assert set(raw) == {task["NodeID"] for task in tasks.values()}
    first = tasks["web.1"]
    for text in (f"id={first['ID']}", "name=web.1", f"node={first['NodeID']}"):
        found = stocked.docker(*words, "--quiet", "--no-trunc", "--filter", text).split()
        assert first["ID"] in found
        assert len(found) == 1
    assert len(stocked.docker(*words, "--quiet", "--filter", "desired-state=running").split()) == 2
    assert stocked.docker(*words, "--quiet", "--filter", "desired-state=shutdown") == ""


@covers("service inspect", "--format", "--pretty")
def test_a_service(stocked: Cluster) -> None:
    assert stocked.docker("service", "inspect", "--format", "{{.Spec.Name}}", "web") == "web"
    shown = stocked.docker("service", "inspect", "--pretty", "web")
    assert " team=blue" in shown
    assert "Replicas:\t2" in shown or "Replicas:  2" in shown.replace("\t", "  ")


@covers("node ls", "--filter", "--format", "--quiet")
def test_nodes(stocked: Cluster) -> None:
    nodes = {name: node["ID"] for name, node in stocked.nodes().items()}
    rows = stocked.docker(
        "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}}"
    ).splitlines()
    assert sorted(rows) == [f"{host} Ready Active" for host in stocked.hosts]
    assert set(stocked.docker("node", "ls", "--quiet").split()) == set(nodes.values())
    for text in (f"id={nodes['host1']}", "name=host1", "node.label=tier=front"):
        assert stocked.docker("node", "ls", "--quiet", "--filter", text) == nodes["host1"]
    for text, count in (("role=manager", 3), ("role=worker", 0), ("membership=accepted", 3)):
        assert len(stocked.docker("node", "ls", "--quiet", "--filter", text).split()) == count
    assert len(stocked.docker("node", "ls", "--quiet", "--filter", "label=tier=gold").split()) == 3


@covers("node ps", "--filter", "--format", "--no-resolve", "--no-trunc", "--quiet")
def test_tasks_of_nodes(stocked: Cluster) -> None:
    everywhere = stocked.docker("node", "ps", *stocked.hosts, "--quiet", "--no-trunc").split()
    assert set(everywhere) == {task["ID"] for name in ("web", "agent") for task in stocked.tasks(name)}
    (task,) = (task for task in stocked.tasks("agent") if stocked.host_of(task) == "host1")
    own = ("node", "ps", "--filter", "name=agent")
    assert stocked.docker(*own, "--quiet") == task["ID"][:12]  # of the node that is asked
    assert stocked.docker(*own, "--format", "{{.Image}} {{.Node}}") == "busybox:latest host1"
    assert stocked.docker(*own, "--no-resolve", "--format", "{{.Node}}", "host1") == task["NodeID"]


@covers("node inspect", "--format", "--pretty")
def test_a_node(stocked: Cluster) -> None:
    assert stocked.docker("node", "inspect", "--format", "{{.Description.Hostname}}", "self") == "host1"
    shown = stocked.docker("node", "inspect", "--pretty", "host1")
    assert "Hostname:" in shown
    assert "tier=front" in shown
    assert "Fingerprint" in shown or "TLS Info" in shown


@pytest.mark.parametrize("kind", ["secret", "config"])
@covers("secret ls", "--filter", "--format", "--quiet")
@covers("config ls", "--filter", "--format", "--quiet")
def test_secrets_and_configs(stocked: Cluster, kind: str) -> None:
    first = stocked.inspect(kind, "first")["ID"]
    assert stocked.docker(kind, "ls", "--format", "{{.Name}}").split() == ["first", "second"]
    for text in (f"id={first}", "name=fir", "label=team", "label=team=blue"):
        assert stocked.docker(kind, "ls", "--quiet", "--filter", text) == first


@pytest.mark.parametrize("kind", ["secret", "config"])
@covers("secret inspect", "--format", "--pretty")
@covers("config inspect", "--format", "--pretty")
def test_a_secret_or_config(stocked: Cluster, kind: str) -> None:
    assert stocked.docker(kind, "inspect", "--format", "{{.Spec.Name}}", "first") == "first"
    shown = stocked.docker(kind, "inspect", "--pretty", "first")
    assert "team=blue" in shown
    assert ("Data:" in shown) == (kind == "config")


@covers("network ls", "--filter", "--format", "--no-trunc", "--quiet")
def test_networks(stocked: Cluster) -> None:
    first = stocked.inspect("network", "first")["Id"]
    for text in (f"id={first}", "name=firs", "label=team=blue", "driver=overlay"):
        found = stocked.docker("network", "ls", "--quiet", "--no-trunc", "--filter", text).split()
        assert first in found
        assert len(found) == (2 if text == "driver=overlay" else 1)  # and ingress
    assert stocked.docker("network", "ls", "--quiet", "--filter", "name=first") == first[:12]
    names = stocked.docker("network", "ls", "--format", "{{.Name}} {{.Scope}}", "--filter", "scope=swarm")
    assert set(names.splitlines()) == {"first swarm", "ingress swarm"}
    custom = stocked.docker("network", "ls", "--format", "{{.Name}}", "--filter", "type=custom").split()
    assert "first" in custom
    assert "bridge" not in custom


@covers("network inspect", "--format", "--verbose")
def test_a_network(stocked: Cluster) -> None:
    assert stocked.docker("network", "inspect", "--format", "{{.Driver}}", "first") == "overlay"
    host = stocked.host_of(stocked.tasks("web")[0])
    services = "{{range $name, $_ := .Services}}{{$name}} {{len .Tasks}} {{end}}"
    shown = eventually(
        "both tasks are told",
        lambda: (
            "web 2"
            in (
                said := stocked.docker(
                    "network", "inspect", "--verbose", "--format", services, "first", host=host
                )
            )
            and said
        ),
    )
    assert "web 2" in shown
