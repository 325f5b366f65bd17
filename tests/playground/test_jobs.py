"""`docker service create --mode replicated-job` and `global-job`."""

from typing import Any

import pytest

from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground

WORK = ("sh", "-c", "sleep 0.3; echo work $SLOT")


def iteration(cluster: Cluster, service: str) -> int:
    return int(cluster.inspect("service", service)["JobStatus"]["JobIteration"].get("Index", 0))


def completed(cluster: Cluster, service: str, count: int) -> list[Json]:
    """Wait for so many completed tasks of the present execution."""

    def done() -> list[Json]:
        now = iteration(cluster, service)
        found = [
            task
            for task in cluster.tasks(service)
            if task["JobIteration"].get("Index", 0) == now and task["Status"]["State"] == "complete"
        ]
        return found if len(found) == count else []

    return eventually(f"{count} tasks of {service} complete", done)


def update(cluster: Cluster, **changes: Any) -> tuple[int, Any]:
    """Write the job's specification as it is, but for the changes."""
    found = cluster.inspect("service", "batch")
    path = f"/services/batch/update?version={found['Version']['Index']}"
    return cluster.curl("host1", "POST", path, {**found["Spec"], **changes})


def shown(cluster: Cluster, service: str) -> str:
    listed = cluster.docker(
        "service", "ls", "--filter", f"name={service}", "--format", "{{.Mode}} {{.Replicas}}"
    )
    return listed.strip()


def test_a_replicated_job(cluster: Cluster) -> None:
    said = cluster.docker(
        "service", "create", "--no-resolve-image", "--name", "batch", "--mode", "replicated-job",
        "--replicas", "5", "--max-concurrent", "2", "--env", "SLOT={{.Task.Slot}}", "busybox", *WORK,
    )  # fmt: skip
    assert "job complete" in said, "the docker CLI waits until it is done"
    assert shown(cluster, "batch") == "replicated job 0/2 (5/5 completed)"
    lines = cluster.eventual_logs("batch", "work 4").splitlines()
    assert sorted(lines) == [f"work {slot}" for slot in range(5)], "each completion once"
    rows = cluster.docker("service", "ps", "batch", "--format", "{{.DesiredState}} {{.CurrentState}}")
    assert [row.split()[:2] for row in rows.splitlines()] == [["Complete", "Complete"]] * 5
    service = cluster.inspect("service", "batch")
    assert service["Spec"]["Mode"] == {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}
    first = service["JobStatus"]["LastExecution"]
    assert iteration(cluster, "batch") == 0

    for mode, found in (("replicated-job", "batch"), ("replicated", ""), ("global-job", "")):
        listed = cluster.docker("service", "ls", "--filter", f"mode={mode}", "--format", "{{.Name}}")
        assert listed == found

    # What is written anew is executed anew, what ended before stays to be seen.
    said = cluster.docker("service", "update", "--no-resolve-image", "--force", "batch")
    assert "job complete" in said
    assert iteration(cluster, "batch") == 1
    assert cluster.inspect("service", "batch")["JobStatus"]["LastExecution"] > first
    assert len(completed(cluster, "batch", 5)) == 5
    assert len(cluster.tasks("batch")) == 10
    assert "job complete" in cluster.docker("service", "scale", "batch=1")
    assert shown(cluster, "batch") == "replicated job 0/2 (1/1 completed)"
    assert "job complete" in cluster.docker("service", "rollback", "batch")
    assert shown(cluster, "batch") == "replicated job 0/2 (5/5 completed)"
    # The docker CLI takes this flag and sends nothing of it, to a dockerd, too.
    cluster.docker("service", "update", "--no-resolve-image", "--max-concurrent", "5", "batch")
    assert (shown(cluster, "batch"), iteration(cluster, "batch")) == (
        "replicated job 0/2 (5/5 completed)",
        3,
    )
    changed, _ = update(cluster, Mode={"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 6}})
    assert changed == 200
    completed(cluster, "batch", 6)
    assert shown(cluster, "batch") == "replicated job 0/3 (6/6 completed)"
    assert "UpdateStatus" not in cluster.inspect("service", "batch")

    # Refusals.
    status, answer = update(cluster, Mode={"Replicated": {"Replicas": 1}})
    assert (status, answer["message"]) == (501, "service mode change is not allowed")
    status, answer = update(cluster, Name="other")
    assert (status, answer["message"]) == (501, "renaming services is not supported")
    status, answer = update(cluster, UpdateConfig={"Parallelism": 1})
    assert (status, answer["message"]) == (400, "Jobs may not have an update config")
    status, _ = update(cluster)
    assert status == 200
    executed = iteration(cluster, "batch")
    assert executed == 4, "an unchanged spec is not executed again"


def test_a_job_that_fails_is_tried_as_its_policy_says(cluster: Cluster) -> None:
    cluster.create(
        "batch", "--mode", "replicated-job", "--replicas", "2", "--max-concurrent", "1",
        "--restart-delay", "100ms", "--restart-max-attempts", "1", "--env", "SLOT={{.Task.Slot}}",
        "--", "sh", "-c", "exit $((1-SLOT))",
    )  # fmt: skip
    completed(cluster, "batch", 1)
    tasks = cluster.tasks("batch")
    states = sorted((task.get("Slot", 0), task["Status"]["State"]) for task in tasks)
    assert states == [(0, "failed"), (0, "failed"), (1, "complete")]
    assert shown(cluster, "batch") == "replicated job 0/1 (1/2 completed)"


def test_a_global_job_runs_once_on_every_node(cluster: Cluster) -> None:
    cluster.docker("node", "update", "--availability", "drain", "host3")
    try:
        said = cluster.docker(
            "service", "create", "--no-resolve-image", "--name", "sweep", "--mode", "global-job",
            "busybox", "echo", "swept",
        )  # fmt: skip
        assert "job complete" in said
        assert shown(cluster, "sweep") == "global job 0/0 (2/2 completed)"
    finally:
        cluster.docker("node", "update", "--availability", "active", "host3")
    tasks = completed(cluster, "sweep", 3)
    assert cluster.spread(tasks) == ["host1", "host2", "host3"], "a node that comes later does its part"
    found = cluster.tasks("sweep", **{"desired-state": "complete"})
    assert len(found) == 3
