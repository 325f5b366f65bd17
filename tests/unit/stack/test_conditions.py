"""Whether a service is far enough for those that depend on it."""

from typing import Any

import pytest

from shoal.stack.conditions import progress

STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"


def _service(mode: dict[str, Any] | None = None, restart: str = "any", **status: int) -> dict[str, Any]:
    template = {"RestartPolicy": {"Condition": restart}}
    spec = {"Mode": mode or {"Replicated": {"Replicas": 2}}, "TaskTemplate": template}
    return {"Spec": spec, "ServiceStatus": status}


def _task(slot: int, state: str, at: str = "1", desired: str = "running", err: str = "") -> dict[str, Any]:
    status = {"State": state, "Err": err}
    return {"Slot": slot, "NodeID": "n", "CreatedAt": at, "DesiredState": desired, "Status": status}


@pytest.mark.parametrize(
    ("condition", "states", "met"),
    [
        (STARTED, ["running", "starting"], True),
        (STARTED, ["running", "preparing"], False),
        (STARTED, ["running"], False),
        (HEALTHY, ["running", "starting"], False),
        (HEALTHY, ["running", "running"], True),
        (COMPLETED, ["complete", "running"], False),
        (COMPLETED, ["complete", "complete"], True),
    ],
)
def test_conditions(condition: str, states: list[str], met: bool) -> None:
    tasks = [_task(slot, state) for slot, state in enumerate(states, 1)]
    assert progress(condition, _service(), tasks).met is met


def test_the_newest_task_of_a_slot_counts() -> None:
    tasks = [_task(1, "running", "1"), _task(1, "preparing", "2"), _task(2, "running")]
    assert not progress(STARTED, _service(), tasks).met


def test_global_services_want_what_the_cluster_says() -> None:
    service = _service({"Global": {}}, DesiredTasks=3)
    assert not progress(STARTED, service, [_task(0, "running")]).met
    assert not progress(STARTED, _service({"Global": {}}), []).met
    assert progress(STARTED, _service({"Global": {}}, DesiredTasks=1), [_task(0, "running")]).met


def test_jobs_are_done_when_all_completions_are() -> None:
    job = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 3}}
    assert progress(COMPLETED, _service(job, CompletedTasks=3), []).met
    now = progress(COMPLETED, _service(job, CompletedTasks=1), [_task(1, "failed", err="exit 1")])
    assert (now.met, now.hopeless) == (False, False)
    assert now.words == "1 of 3 tasks completed (exit 1)"


def test_what_is_not_restarted_will_never_complete() -> None:
    failed = [_task(1, "failed", desired="shutdown"), _task(2, "complete")]
    assert progress(COMPLETED, _service(restart="none"), failed).hopeless
    assert not progress(COMPLETED, _service(restart="any"), failed).hopeless


def test_an_update_that_stopped_brings_nothing() -> None:
    service = _service() | {"UpdateStatus": {"State": "paused", "Message": "update paused due to failure"}}
    now = progress(HEALTHY, service, [_task(1, "running")])
    assert (now.hopeless, now.words) == (True, "its update stopped: update paused due to failure")


def test_no_replicas_are_enough_for_none() -> None:
    assert progress(STARTED, _service({"Replicated": {"Replicas": 0}}), []).met
