"""Where tasks go, and what a task that can go nowhere says."""

import subprocess
import sys

import pytest

from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground


@pytest.mark.parametrize(
    ("constraint", "hosts"),
    [
        ("node.hostname==host2", ["host2"] * 3),
        ("node.hostname!=host2", ["host1", "host3"]),
        ("node.labels.zone==east", ["host3"] * 3),
        ("node.role==manager", ["host1", "host2", "host3"]),
        ("engine.labels.tier==gold", ["host1", "host2", "host3"]),
        ("node.platform.os==linux", ["host1", "host2", "host3"]),
        ("node.platform.arch==x86_64", ["host1", "host2", "host3"]),
        ("node.ip==192.0.2.12/31", ["host2", "host2", "host3"]),
    ],
)
def test_constraints(cluster: Cluster, constraint: str, hosts: list[str]) -> None:
    cluster.docker("node", "update", "--label-add", "zone=east", "host3")
    try:
        tasks = cluster.run("web", "--constraint", constraint, replicas=3)
    finally:
        cluster.docker("node", "update", "--label-rm", "zone", "host3")
    assert set(cluster.spread(tasks)) == set(hosts)


def pending(cluster: Cluster, service: str) -> str:
    """Why the service's task waits, as `docker service ps` tells."""
    return eventually(
        f"a task of {service} says why it waits",
        lambda: (
            cluster.docker(
                "service", "ps", "--no-trunc", "--format", "{{.CurrentState}}: {{.Error}}", service
            )
            .partition("Pending")[2]
            .partition(": ")[2]
        ),
    )


def test_a_task_that_fits_nowhere_says_why_for_each_filter(cluster: Cluster) -> None:
    cluster.docker("node", "update", "--availability", "pause", "host1")
    try:
        cluster.create("elsewhere", "--constraint", "node.hostname==mars")
        cluster.create("big", "--reserve-memory", "500g")
        cluster.create("busy", "--reserve-cpu", "1000")
        paused = "1 node not available for new tasks"
        said = pending(cluster, "elsewhere")
        assert said == f'"no suitable node (scheduling constraints not satisfied on 2 nodes; {paused})"'
        for service in ("big", "busy"):
            said = pending(cluster, service)
            assert said == f'"no suitable node (insufficient resources on 2 nodes; {paused})"'
    finally:
        cluster.docker("node", "update", "--availability", "active", "host1")
    for service in ("elsewhere", "big", "busy"):
        assert cluster.tasks_in(service, "running") == []


def test_a_waiting_task_starts_once_a_node_fits(cluster: Cluster) -> None:
    cluster.create("web", "--constraint", "node.labels.disk==ssd")
    assert "constraints not satisfied" in pending(cluster, "web")
    cluster.docker("node", "update", "--label-add", "disk=ssd", "host2")
    try:
        assert cluster.spread(cluster.running("web", 1)) == ["host2"]
    finally:
        cluster.docker("node", "update", "--label-rm", "disk", "host2")


def test_at_most_so_many_replicas_on_a_node(cluster: Cluster) -> None:
    cluster.create("web", "--replicas", "4", "--replicas-max-per-node", "1")
    assert cluster.spread(cluster.running("web", 3)) == ["host1", "host2", "host3"]
    assert "max replicas per node limit exceed" in pending(cluster, "web")


def test_reserved_memory_is_counted(cluster: Cluster) -> None:
    total = min(node["Description"]["Resources"]["MemoryBytes"] for node in cluster.nodes().values())
    cluster.create("big", "--replicas", "4", "--reserve-memory", str(total * 2 // 3))
    assert cluster.spread(cluster.running("big", 3)) == ["host1", "host2", "host3"]
    assert "insufficient resources on 3 nodes" in pending(cluster, "big")
    cluster.docker("service", "scale", "--detach", "big=3")
    cluster.create("small", "--reserve-memory", str(total // 2))
    assert "insufficient resources" in pending(cluster, "small")
    cluster.docker("service", "scale", "--detach", "big=2")
    cluster.running("small", 1)  # in the memory that the third gave back


def test_a_port_of_the_host_is_taken_once_per_node(cluster: Cluster) -> None:
    cluster.create(
        "web", "--replicas", "4", "--publish", "mode=host,published=9090,target=80",
        "--", "sh", "-c", "hostname > /index.html; httpd -f -p 80 -h /",
    )  # fmt: skip
    tasks = cluster.running("web", 3)
    assert cluster.spread(tasks) == ["host1", "host2", "host3"]
    assert "host-mode port already in use on 3 nodes" in pending(cluster, "web")
    for task in tasks:
        host = cluster.host_of(task)
        name = cluster.container(task)["Config"]["Hostname"]
        assert eventually(f"{host} answers", lambda host=host: fetched(cluster, host, 9090)) == name
        ports = task["Status"]["PortStatus"]["Ports"]
        assert [(p["PublishedPort"], p["TargetPort"], p["PublishMode"]) for p in ports] == [
            (9090, 80, "host")
        ]


def fetched(cluster: Cluster, host: str, port: int) -> str:
    """What a port answers, or nothing."""
    try:
        return cluster.fetch(host, port)
    except AssertionError:
        return ""


def test_tasks_spread_over_a_label_preference(cluster: Cluster) -> None:
    for host, rack in (("host1", "a"), ("host2", "b"), ("host3", "b")):
        cluster.docker("node", "update", "--label-add", f"rack={rack}", host)
    try:
        tasks = cluster.run("web", "--placement-pref", "spread=node.labels.rack", replicas=4)
    finally:
        for host in cluster.hosts:
            cluster.docker("node", "update", "--label-rm", "rack", host)
    assert cluster.spread(tasks) == ["host1", "host1", "host2", "host3"]


def test_generic_resources_are_claimed_by_name_and_number_and_freed(cluster: Cluster) -> None:
    described = cluster.nodes()["host2"]["Description"]["Resources"]["GenericResources"]
    assert {"NamedResourceSpec": {"Kind": "gpu", "Value": "two"}} in described
    assert {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}} in described
    assert cluster.client("host2").info()["GenericResources"] == described
    cluster.create(
        "train", "--constraint", "node.hostname==host2", "--replicas", "2",
        "--generic-resource", "gpu=1", "--generic-resource", "ssd=1",
    )  # fmt: skip
    tasks = cluster.running("train", 2)
    given = [cluster.enter(task, "echo $(tr '\\0' '\\n' </proc/1/environ | grep DOCKER_) ") for task in tasks]
    assert sorted(given) == [f"DOCKER_RESOURCE_GPU={name} DOCKER_RESOURCE_SSD=1" for name in ("one", "two")]
    claimed = [task["GenericResources"] for task in tasks]
    assert sorted(each[0]["NamedResourceSpec"]["Value"] for each in claimed) == ["one", "two"]
    assert all(each[1]["DiscreteResourceSpec"] == {"Kind": "ssd", "Value": 1} for each in claimed)

    # No third one fits; what a task leaves is given to the next.
    cluster.docker("service", "scale", "--detach", "train=3")
    assert "insufficient resources on 1 node" in pending(cluster, "train")
    first = next(task for task in tasks if task["Slot"] == 1)
    cluster.client(cluster.host_of(first)).api.kill(first["Status"]["ContainerStatus"]["ContainerID"])
    eventually(
        "the third has its resources",
        lambda: len([t for t in cluster.tasks_in("train", "running") if t["ID"] != first["ID"]]) == 2,
    )

    # Without a GPU all three fit, and are told of their disks only.
    cluster.update("train", "--generic-resource-rm", "gpu", "--generic-resource-rm", "ssd")
    cluster.update("train", "--generic-resource-add", "ssd=1", "--update-parallelism", "0")
    eventually(
        "all three have a disk and no GPU",
        lambda: (
            [
                task["GenericResources"]
                for task in cluster.tasks_in("train", "running")
                if len(task.get("GenericResources", ())) == 1
            ]
            == [[{"DiscreteResourceSpec": {"Kind": "ssd", "Value": 1}}]] * 3
        ),
    )


def test_why_a_task_waits_is_told_in_sentences(cluster: Cluster) -> None:
    cluster.create("elsewhere", "--constraint", "node.labels.disk==nvme", "--reserve-memory", "64m")
    pending(cluster, "elsewhere")
    status, told = cluster.curl("host2", "GET", "/v1.50/shoal/services/elsewhere/explain")
    assert status == 200
    assert told["Summary"] == "Service elsewhere: 0 of 1 replicas run."
    (task,) = told["Tasks"]
    unmet = "node.labels.disk==nvme is asked for, and its node.labels.disk is not set."
    assert task["Why"][1:] == [f"Node host{number}: {unmet}" for number in (1, 2, 3)]
    assert "docker node update --label-add" in told["Advice"][0]
    command = [sys.executable, "-m", "shoal.cli.main", "-H", cluster.playground.host("host1").docker_host]
    words = [*command, "service", "explain", "elsewhere"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "Node host2: node.labels.disk==nvme is asked for" in " ".join(said.split())

    cluster.docker("node", "update", "--label-add", "disk=nvme", "host3")
    try:
        (running,) = cluster.running("elsewhere", 1)
        said = subprocess.run(
            [*command, "task", "explain", "elsewhere.1"], capture_output=True, text=True, check=True
        ).stdout
        assert said.startswith("Task elsewhere.1 is running on host3 for ")
        assert running["ID"] in said
        assert "1 of 3 nodes fitted" in said
    finally:
        cluster.docker("node", "update", "--label-rm", "disk", "host3")
    # The constraint holds no more: the task stops, and says why.
    stopped = eventually(
        "the task is stopped",
        lambda: [
            words
            for words in cluster.curl("host1", "GET", f"/shoal/tasks/{running['ID']}/explain")[1]["Why"]
            if words.startswith("It was stopped: node host3 no longer fits")
        ],
    )
    assert stopped
    status, told = cluster.curl("host1", "GET", "/shoal/tasks/nothing/explain")
    assert (status, told["message"]) == (404, "task nothing not found")
