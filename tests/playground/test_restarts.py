"""Tasks that end or sicken are replaced, as their service's restart policy says."""

from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground


def test_a_crashing_task_is_replaced_and_its_history_kept(cluster: Cluster) -> None:
    folder = cluster.playground.layout.home("host1") / "crashes"
    folder.mkdir(exist_ok=True)
    cluster.create(
        "crash", "--restart-delay", "10ms", "--constraint", "node.hostname==host1",
        "--mount", f"type=bind,source={folder},target=/crashes",
        "--", "sh", "-c", "touch /crashes/$(hostname); exit 7",
    )  # fmt: skip
    eventually("it was tried often", lambda: len(list(folder.iterdir())) >= 8)
    names = cluster.docker("service", "ps", "--format", "{{.Name}}", "crash").splitlines()
    assert 5 <= len(names) <= 6  # task-history-limit 5, and the current one
    assert "task: non-zero exit (7)" in cluster.complaint("crash")


def failed(cluster: Cluster, service: str) -> list[Json]:
    """The service's tasks that have failed and are still known."""
    return [task for task in cluster.tasks(service) if task["Status"]["State"] == "failed"]


def test_a_killed_container_is_replaced(cluster: Cluster) -> None:
    (task,) = cluster.run("web", "--restart-delay", "50ms")
    host = cluster.host_of(task)
    cluster.docker("kill", task["Status"]["ContainerStatus"]["ContainerID"], host=host)
    cluster.replaced("web", task)
    old = next(t for t in cluster.tasks("web") if t["ID"] == task["ID"])
    assert old["Status"]["State"] == "failed"
    assert old["Status"]["ContainerStatus"]["ExitCode"] == 137
    assert old["DesiredState"] == "shutdown"


def test_on_failure_leaves_a_task_that_succeeded(cluster: Cluster) -> None:
    options = ["--restart-condition", "on-failure", "--restart-delay", "10ms"]
    cluster.create("good", *options, "--", "true")
    cluster.create("bad", *options, "--restart-max-attempts", "2", "--", "false")
    eventually("bad is tried three times", lambda: len(failed(cluster, "bad")) == 3)
    eventually("good ends", lambda: cluster.tasks("good")[-1]["Status"]["State"] == "complete")
    assert len(cluster.tasks("good")) == 1
    assert len(cluster.tasks("bad")) == 3


def test_a_task_without_its_image_says_so(cluster: Cluster) -> None:
    cluster.create("web", "--restart-condition", "none", image="registry:5000/no/such:1")
    said = cluster.complaint("web")
    assert "registry:5000/no/such:1" in said


def test_a_program_that_is_not_there_says_so(cluster: Cluster) -> None:
    cluster.create("web", "--restart-condition", "none", "--", "no-such-program")
    said = cluster.complaint("web")
    assert "no-such-program" in said
    assert "not found" in said


HEALTH = ("--health-interval", "200ms", "--health-timeout", "2s", "--health-retries", "2")


def test_a_task_runs_once_it_is_healthy_and_is_replaced_when_it_is_not(cluster: Cluster) -> None:
    folder: Path = cluster.playground.layout.home("host1") / "health"
    folder.mkdir(exist_ok=True)
    cluster.create(
        "web", *HEALTH, "--health-cmd", "test -e /health/good", "--health-start-period", "60s",
        "--restart-delay", "50ms", "--constraint", "node.hostname==host1",
        "--mount", f"type=bind,source={folder},target=/health",
    )  # fmt: skip
    (task,) = eventually("it starts", lambda: cluster.tasks_in("web", "starting"))
    container = eventually("it is probed", lambda: probed(cluster, task))
    assert container["State"]["Health"]["Status"] == "starting"
    assert cluster.docker("service", "ls", "--format", "{{.Replicas}}") == "0/1"
    assert "(health: starting)" in cluster.docker("ps", "--format", "{{.Status}}")
    (folder / "good").touch()
    assert [t["ID"] for t in cluster.running("web", 1)] == [task["ID"]]
    assert "(healthy)" in cluster.docker("ps", "--format", "{{.Status}}")

    (folder / "good").unlink()
    (other,) = eventually(
        "another starts", lambda: [t for t in cluster.tasks_in("web", "starting") if t["ID"] != task["ID"]]
    )
    old = next(t for t in cluster.tasks("web") if t["ID"] == task["ID"])
    assert old["Status"]["State"] == "failed"
    assert "unhealthy" in old["Status"]["Err"]
    assert other["Slot"] == task["Slot"]


def probed(cluster: Cluster, task: Json) -> Json | None:
    """The task's container, once a probe has been made."""
    for each in cluster.tasks_in("web", "starting"):
        if each["ID"] == task["ID"] and each["Status"].get("ContainerStatus"):
            container = cluster.container(each)
            return container if container["State"].get("Health", {}).get("Log") else None
    return None
