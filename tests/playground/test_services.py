"""`docker service`: create, list, inspect, scale, update, remove."""

import threading
import time

import pytest

from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground


def test_create_waits_until_it_runs_and_rm_ends_it(cluster: Cluster) -> None:
    said = cluster.docker(
        "service", "create", "--no-resolve-image", "--stop-grace-period", "100ms", "--replicas", "3",
        "--name", "web", "--label", "team=blue", "busybox", "sleep", "infinity",
    )  # fmt: skip
    assert "converged" in said
    tasks = cluster.tasks_in("web", "running")
    assert cluster.spread(tasks) == ["host1", "host2", "host3"]
    for task in tasks:
        assert cluster.container(task)["State"]["Running"]

    listed = cluster.docker("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}")
    assert listed == "web replicated 3/3 busybox:latest"
    assert cluster.docker("service", "ls", "--quiet", "--filter", "label=team=red") == ""
    assert cluster.docker("service", "ls", "--quiet", "--filter", "label=team=blue")
    rows = cluster.docker(
        "service", "ps", "web", "--format", "{{.Name}} {{.Node}} {{.CurrentState}}"
    ).splitlines()
    assert sorted(row.split()[0] for row in rows) == ["web.1", "web.2", "web.3"]
    assert all(" Running " in row for row in rows)
    inspected = cluster.inspect("service", "web")
    assert inspected["Spec"]["Labels"] == {"team": "blue"}
    assert inspected["Spec"]["Mode"] == {"Replicated": {"Replicas": 3}}
    assert "Service Mode:\tReplicated" in cluster.docker("service", "inspect", "--pretty", "web")

    assert cluster.docker("service", "rm", "web") == "web"
    assert "no such service: web" in cluster.refused("service", "inspect", "web")
    for host in cluster.hosts:
        eventually(
            f"{host} ends them", lambda host=host: not cluster.docker("ps", "--all", "--quiet", host=host)
        )


def test_every_manager_takes_the_same_commands(cluster: Cluster) -> None:
    cluster.create("one", host="host2")
    assert cluster.inspect("service", "one", host="host3")["Spec"]["Name"] == "one"
    cluster.running("one", 1, host="host3")
    cluster.docker("service", "update", "--detach", "--label-add", "by=host3", "one", host="host3")
    assert cluster.inspect("service", "one", host="host2")["Spec"]["Labels"] == {"by": "host3"}
    cluster.docker("service", "rm", "one", host="host2")
    assert cluster.docker("service", "ls", "--quiet", host="host1") == ""


def test_scale_up_and_down(cluster: Cluster) -> None:
    before = cluster.run("web", replicas=2)
    said = cluster.docker("service", "scale", "--detach", "web=6")
    assert "web scaled to 6" in said
    grown = cluster.running("web", 6)
    assert {task["ID"] for task in before} <= {task["ID"] for task in grown}  # those that ran, run on
    assert cluster.spread(grown) == ["host1"] * 2 + ["host2"] * 2 + ["host3"] * 2
    assert sorted(task["Slot"] for task in grown) == [1, 2, 3, 4, 5, 6]
    cluster.docker("service", "scale", "--detach", "web=0")
    cluster.running("web", 0)
    assert cluster.docker("service", "ls", "--format", "{{.Replicas}}") == "0/0"


def test_a_global_service_runs_once_on_every_node(cluster: Cluster) -> None:
    cluster.create("agent", "--mode", "global")
    assert cluster.spread(cluster.running("agent", 3)) == ["host1", "host2", "host3"]
    assert cluster.docker("service", "ls", "--format", "{{.Mode}} {{.Replicas}}") == "global 3/3"
    assert "scale can only be used with replicated" in cluster.refused("service", "scale", "agent=5")
    cluster.docker("node", "update", "--availability", "drain", "host3")
    try:
        assert cluster.spread(cluster.running("agent", 2)) == ["host1", "host2"]
    finally:
        cluster.docker("node", "update", "--availability", "active", "host3")
    assert cluster.spread(cluster.running("agent", 3)) == ["host1", "host2", "host3"]


def test_an_update_replaces_one_task_at_a_time(cluster: Cluster) -> None:
    old = {task["ID"] for task in cluster.run("web", "--update-monitor", "100ms", replicas=4)}
    fewest, done = [4], threading.Event()

    def watch() -> None:
        while not done.is_set():
            fewest.append(len(cluster.tasks_in("web", "running", host="host2")))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        cluster.docker(
            "service", "update", "--quiet", "--no-resolve-image", "--env-add", "COLOUR=green", "web"
        )
    finally:
        done.set()
        watcher.join()
    assert min(fewest) == 3
    updated = cluster.running("web", 4)
    assert not old & {task["ID"] for task in updated}
    assert {cluster.enter(task, "tr '\\0' '\\n' </proc/1/environ | grep COLOUR") for task in updated} == {
        "COLOUR=green"
    }
    service = cluster.inspect("service", "web")
    assert service["UpdateStatus"]["State"] == "completed"
    assert service["PreviousSpec"]["TaskTemplate"]["ContainerSpec"].get("Env") is None


def test_an_update_that_changes_no_task_replaces_none(cluster: Cluster) -> None:
    before = {task["ID"] for task in cluster.run("web", replicas=2)}
    cluster.update("web", "--label-add", "a=b", "--replicas", "3")
    assert before < {task["ID"] for task in cluster.running("web", 3)}
    cluster.update("web", "--force")
    eventually(
        "--force replaces them",
        lambda: (
            len(cluster.tasks_in("web", "running")) == 3
            and not before & {task["ID"] for task in cluster.tasks_in("web", "running")}
        ),
    )


def test_an_update_to_an_image_that_does_not_start_pauses(cluster: Cluster) -> None:
    cluster.run("web", "--update-monitor", "1s", "--restart-delay", "100ms", replicas=3)
    cluster.update("web", "--args", "no-such-program")
    state = eventually(
        "the update stops",
        lambda: (
            (s := cluster.inspect("service", "web").get("UpdateStatus", {})).get("State") == "paused" and s
        ),
    )
    assert "update paused due to failure" in state["Message"]
    assert len(cluster.tasks_in("web", "running")) == 2  # the others were left alone
    cluster.docker("service", "rollback", "--detach", "web")
    assert cluster.inspect("service", "web")["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"] == [
        "sleep",
        "infinity",
    ]
    cluster.running("web", 3)


def test_names_are_unique_and_checked(cluster: Cluster) -> None:
    cluster.create("web", "--replicas", "0")
    assert "name conflicts with an existing object" in cluster.refused(
        "service", "create", "--detach", "--no-resolve-image", "--name", "web", "busybox"
    )
    assert "name must be valid as a DNS name component" in cluster.refused(
        "service", "create", "--detach", "--no-resolve-image", "--name", "no_good!", "busybox"
    )
    assert "no such service: no-such" in cluster.refused("service", "ps", "no-such")
    assert "no-such" in cluster.refused("service", "rm", "no-such")


def test_a_stale_version_is_refused(cluster: Cluster) -> None:
    id = cluster.create("web", "--replicas", "0")
    service = cluster.inspect("service", "web")
    cluster.docker("service", "update", "--detach", "--label-add", "a=b", "web")
    path = f"/v1.50/services/{id}/update?version={service['Version']['Index']}"
    status, answer = cluster.curl("host2", "POST", path, service["Spec"])
    assert status >= 400
    assert "update out of sequence" in answer["message"]
    assert cluster.inspect("service", "web")["Spec"]["Labels"] == {"a": "b"}
