"""`docker node`: list, inspect, update, ps."""

import pytest

from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground


def test_ls_and_inspect(cluster: Cluster) -> None:
    listed = cluster.docker(
        "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}"
    )
    rows = sorted(listed.splitlines())
    assert [row.split()[:3] for row in rows] == [[host, "Ready", "Active"] for host in cluster.hosts]
    assert sorted(row.split()[3] for row in rows) == ["Leader", "Reachable", "Reachable"]
    node = cluster.inspect("node", "host2", host="host3")
    assert node["Status"] == {"State": "ready", "Addr": "192.0.2.12"}
    assert node["ManagerStatus"]["Addr"] == "192.0.2.12:2377"
    assert node["Description"]["Engine"]["Labels"] == {"tier": "gold"}
    assert node["Description"]["Platform"]["OS"] == "linux"
    assert node["Description"]["Resources"]["NanoCPUs"] >= 10**9
    assert cluster.inspect("node", "self", host="host2")["ID"] == node["ID"]
    assert "Hostname:              \thost2" in cluster.docker("node", "inspect", "--pretty", "host2")
    assert "node mars not found" in cluster.refused("node", "inspect", "mars")


def test_labels(cluster: Cluster) -> None:
    cluster.docker("node", "update", "--label-add", "zone=east", "--label-add", "disk=ssd", "host2")
    assert cluster.inspect("node", "host2")["Spec"]["Labels"] == {"zone": "east", "disk": "ssd"}
    assert cluster.docker("node", "ls", "--quiet", "--filter", "node.label=zone=east").count("\n") == 0
    cluster.docker("node", "update", "--label-rm", "zone", "--label-rm", "disk", "host2")
    assert cluster.inspect("node", "host2")["Spec"].get("Labels", {}) == {}


def test_drain_moves_tasks_away(cluster: Cluster) -> None:
    cluster.run("web", replicas=6)
    cluster.docker("node", "update", "--availability", "drain", "host2")
    try:
        eventually(
            "they run elsewhere",
            lambda: cluster.spread(cluster.tasks_in("web", "running")) == ["host1"] * 3 + ["host3"] * 3,
        )
        eventually("none is left", lambda: not cluster.docker("ps", "--quiet", host="host2"))
        assert cluster.docker("node", "ps", "host2", "--filter", "desired-state=running", "--quiet") == ""
    finally:
        cluster.docker("node", "update", "--availability", "active", "host2")
    cluster.docker("service", "scale", "--detach", "web=9")
    assert cluster.spread(cluster.running("web", 9)).count("host2") == 3


def test_pause_keeps_tasks_and_takes_no_new_ones(cluster: Cluster) -> None:
    before = cluster.run("web", replicas=3)
    cluster.docker("node", "update", "--availability", "pause", "host1")
    try:
        cluster.docker("service", "scale", "--detach", "web=5")
        tasks = cluster.running("web", 5)
        assert {task["ID"] for task in before} < {task["ID"] for task in tasks}
        assert cluster.spread(tasks) == ["host1", "host2", "host2", "host3", "host3"]
    finally:
        cluster.docker("node", "update", "--availability", "active", "host1")
    cluster.docker("service", "scale", "--detach", "web=6")
    assert cluster.spread(cluster.running("web", 6)).count("host1") == 2


def test_node_ps_lists_its_tasks(cluster: Cluster) -> None:
    cluster.run("web", replicas=3)
    for host in cluster.hosts:
        (row,) = cluster.docker("node", "ps", host, "--format", "{{.Name}} {{.Node}}").splitlines()
        assert row.startswith("web.")
        assert row.endswith(f" {host}")


def test_the_last_manager_and_nonsense_are_refused(cluster: Cluster) -> None:
    id = cluster.nodes()["host1"]["ID"]
    status, answer = cluster.curl(
        "host1", "POST", f"/nodes/{id}/update?version=1", {"Availability": "sometimes"}
    )
    assert status == 400
    assert "sometimes" in answer["message"].lower()
