"""When a service counts as being as asked for, and what is shown on the way."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from cluster.errors import ShoalError
from shoal.cli import progress
from shoal.cli.client import EngineError, Unreachable
from shoal.cli.convergence import Convergence, Slot, combined, measure

NODES = {
    "n1": {"ID": "n1", "Description": {"Hostname": "host1"}, "Status": {"State": "ready"}},
    "n2": {"ID": "n2", "Description": {"Hostname": "host2"}, "Status": {"State": "down"}},
}


def service(replicas: int | None = 2, update: str = "", desired: int = 0) -> dict[str, Any]:
    mode = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    found: dict[str, Any] = {"ID": "s", "Spec": {"Name": "web", "Mode": mode}}
    if update:
        found["UpdateStatus"] = {"State": update, "Message": "task x failed"}
    if desired:
        found["ServiceStatus"] = {"DesiredTasks": desired}
    return found


def task(
    slot: int, state: str, *, desired: str = "running", node: str = "n1", at: str = "1", err: str = ""
) -> Any:
    status = {"State": state, "Err": err}
    return {
        "ID": f"t{slot}{at}",
        "Slot": slot,
        "NodeID": node,
        "DesiredState": desired,
        "CreatedAt": at,
        "Status": status,
    }


def test_all_running_is_done() -> None:
    state = measure(service(2), [task(1, "running"), task(2, "running")], NODES)
    assert (state.running, state.wanted, state.done) == (2, 2, True)
    assert [slot.name for slot in state.slots] == ["1", "2"]


def test_one_still_starting_is_not_done() -> None:
    state = measure(service(2), [task(1, "running"), task(2, "preparing")], NODES)
    assert not state.done
    assert state.slots[1].steps == 5


def test_the_newest_task_speaks_for_its_slot_and_the_last_failure_is_shown() -> None:
    failed = task(1, "failed", desired="shutdown", at="1", err="exit 1")
    state = measure(service(1), [failed, task(1, "starting", at="2")], NODES)
    assert [(slot.state, slot.error) for slot in state.slots] == [("starting", "exit 1")]
    state = measure(service(1), [failed, task(1, "running", at="2")], NODES)
    assert [(slot.state, slot.error) for slot in state.slots] == [("running", "")]


def test_a_task_on_a_node_that_is_down_does_not_count() -> None:
    state = measure(service(1), [task(1, "running", node="n2")], NODES)
    assert not state.done
    assert "host2 is down" in state.slots[0].error


def test_a_job_is_done_when_all_its_tasks_have_completed() -> None:
    job = service(None)
    job["Spec"]["Mode"] = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}
    done = task(0, "complete", desired="complete")
    assert not measure(job, [done], NODES).done
    both = measure(job, [done, task(1, "complete", desired="complete")], NODES)
    assert (both.running, both.wanted, both.done) == (2, 2, True)


def test_several_services_are_done_when_each_is() -> None:
    ready = measure(service(1), [task(1, "running"), task(2, "running")], NODES)
    missing = measure(service(2), [task(1, "running")], NODES)
    both = combined({"a": ready, "b": missing})
    assert (both.running, both.wanted, both.done) == (2, 3, False)
    assert [slot.name for slot in both.slots] == ["a.1", "a.2", "b.1"]
    assert combined({"a": ready, "c": ready}).done
    paused = measure(service(1, "paused"), [task(1, "running")], NODES)
    assert combined({"a": ready, "b": paused}).stopped.startswith("b: paused")


def test_slots_scaled_away_are_not_shown() -> None:
    retired = task(2, "shutdown", desired="shutdown")
    state = measure(service(1), [task(1, "running"), retired], NODES)
    assert [slot.name for slot in state.slots] == ["1"]
    assert state.done


def test_a_global_service_wants_what_the_cluster_says() -> None:
    tasks = [task(0, "running", node="n1")]
    assert not measure(service(None, desired=2), tasks, NODES).done
    state = measure(service(None, desired=1), tasks, NODES)
    assert state.done
    assert state.slots[0].name == "host1"


@pytest.mark.parametrize("update", ["updating", "rollback_started"])
def test_an_update_under_way_is_not_done(update: str) -> None:
    assert not measure(service(1, update), [task(1, "running")], NODES).done


@pytest.mark.parametrize("update", ["paused", "rollback_paused", "rollback_completed"])
def test_a_stopped_update_says_why(update: str) -> None:
    assert measure(service(1, update), [task(1, "running")], NODES).stopped == f"{update}: task x failed"


def test_a_rollback_that_was_asked_for_is_done_when_it_has_completed() -> None:
    tasks = [task(1, "running")]
    assert measure(service(1, "rollback_completed"), tasks, NODES, rollback=True).done
    assert measure(service(1, "rollback_paused"), tasks, NODES, rollback=True).stopped
    assert not measure(service(1, "rollback_started"), tasks, NODES, rollback=True).done


def test_zero_replicas_are_done_at_once() -> None:
    assert measure(service(0), [], NODES).done


class _Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def state(running: int, wanted: int = 1, stopped: str = "") -> Convergence:
    slot = Slot("1", "running" if running else "starting", "host1", "")
    return Convergence(wanted, running, (slot,), False, stopped)


def watch(*looks: Convergence | Exception, terminal: bool = False) -> tuple[str, float]:
    """Wait through these looks (the last one goes on); returns what was shown and how long it took."""
    sequence: Iterator[Convergence | Exception] = iter(looks)
    last: list[Convergence | Exception] = []

    def look() -> Convergence:
        last[:] = [next(sequence, last[0] if last else looks[-1])]
        if isinstance(last[0], Exception):
            raise last[0]
        return last[0]

    clock, out = _Clock(), io.StringIO()
    progress.wait(look, Console(file=out, force_terminal=terminal, width=100), clock=clock, sleep=clock.sleep)
    return out.getvalue(), clock.now


def test_waits_until_it_has_been_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STABLE_SECONDS", 2.0)
    shown, took = watch(state(0), state(1), state(0), state(1))
    assert shown.count("1 out of 1 tasks run") == 2
    assert 2.0 + 3 * 0.2 <= took < 3.0


def test_a_moment_without_a_leader_is_waited_out() -> None:
    shown, _ = watch(state(0), EngineError(503, "no leader"), Unreachable("gone"), state(1))
    assert "as asked for" in shown


def test_a_long_silence_is_an_error() -> None:
    with pytest.raises(EngineError, match="no leader"):
        watch(state(0), EngineError(503, "no leader"))


def test_a_service_that_is_gone_is_an_error_at_once() -> None:
    with pytest.raises(EngineError, match="not found"):
        watch(EngineError(404, "not found"), state(1))


def test_a_paused_update_is_an_error() -> None:
    with pytest.raises(ShoalError, match="paused: why"):
        watch(state(0, stopped="paused: why"))


def test_a_terminal_shows_a_line_for_each_slot() -> None:
    shown, _ = watch(state(0), state(1), terminal=True)
    assert "overall progress: 1 out of 1 tasks" in shown
    assert "host1" in shown


def test_a_log_tells_each_error_once() -> None:
    failing = Convergence(1, 0, (Slot("1", "starting", "host1", "no [such] image"),), False, "")
    shown, _ = watch(failing, failing, state(1))
    assert shown.count("a task failed: no [such] image") == 1
