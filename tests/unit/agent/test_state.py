"""The agent's memory survives restarts and torn files."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.dataplane import DataplaneChanges, PeerRecord
from cluster.objects import Task, TaskStatus
from cluster.states import TaskState
from worker.agent.disk import SystemDisk
from worker.agent.state import AgentState

REAL_WRITE = os.write
STATES = st.sampled_from(list(TaskState))


def opened(directory: Path) -> AgentState:
    state = AgentState(directory)
    state.open()
    return state


@given(
    changes=st.lists(st.tuples(st.sampled_from("abc"), st.none() | STATES), max_size=30),
    cut=st.integers(min_value=0, max_value=60),
)
def test_what_was_saved_is_there_after_a_restart(
    changes: list[tuple[str, TaskState | None]], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        state = opened(Path(directory))
        history: list[dict[str, TaskState]] = [{}]
        expected: dict[str, TaskState] = {}
        for task_id, new in changes:
            if new is None:
                state.forget(task_id)
                expected.pop(task_id, None)
            else:
                state.save(Task(id=task_id), TaskStatus(state=new))
                expected[task_id] = new
            history.append(dict(expected))
        state.close()
        journal = Path(directory) / "tasks.journal"
        content = journal.read_bytes()
        journal.write_bytes(content[: max(0, len(content) - cut)])
        again = opened(Path(directory))
        found = {held.task.id: held.status.state for held in again.load()}
        again.close()
        assert found == expected if cut == 0 else found in history


def test_network_records_survive(tmp_path: Path) -> None:
    state = opened(tmp_path)
    records = DataplaneChanges(full=True, peers=(PeerRecord(node_id="n", address="192.0.2.1"),))
    state.save_dataplane(records)
    state.close()
    assert opened(tmp_path).load_dataplane() == records


def test_the_journal_does_not_grow_for_ever(tmp_path: Path) -> None:
    state = opened(tmp_path)
    for number in range(40_000):
        state.save(Task(id="t"), TaskStatus(state=TaskState.RUNNING, timestamp=number))
    state.close()
    assert (tmp_path / "tasks.journal").stat().st_size < 3 << 20


def test_zeros_at_the_end_as_a_loss_of_power_leaves_them_are_no_record(tmp_path: Path) -> None:
    state = opened(tmp_path)
    state.save(Task(id="t"), TaskStatus())
    state.close()
    with (tmp_path / "tasks.journal").open("ab") as journal:
        journal.write(bytes(100))
    assert [held.task.id for held in opened(tmp_path).load()] == ["t"]


def test_a_node_that_left_remembers_nothing(tmp_path: Path) -> None:
    state = opened(tmp_path)
    state.save(Task(id="t"), TaskStatus())
    state.clear()
    state.save(Task(id="u"), TaskStatus())
    assert opened(tmp_path).load() == []


def test_a_full_disk_is_survived_and_caught_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = opened(tmp_path)
    state.save(Task(id="a"), TaskStatus(state=TaskState.RUNNING))

    def short(descriptor: int, data: bytes) -> int:
        return REAL_WRITE(descriptor, data[:7])  # as the kernel writes what still fits

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", short)
    state.save(Task(id="b"), TaskStatus(state=TaskState.RUNNING))
    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(SystemDisk, "replace", lambda disk, path, content: full(0, content))
    state.save(Task(id="c"), TaskStatus(state=TaskState.RUNNING))
    assert "No space left on device" in str(caplog.records[-1].__dict__)
    monkeypatch.undo()
    state.save(Task(id="d"), TaskStatus(state=TaskState.RUNNING))
    assert {held.task.id for held in opened(tmp_path).load()} == {"a", "b", "c", "d"}


def test_an_agent_starts_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path).save(Task(id="a"), TaskStatus(state=TaskState.RUNNING))

    def full(disk: SystemDisk, path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(SystemDisk, "replace", full)
    state = opened(tmp_path)
    assert [held.task.id for held in state.load()] == ["a"]
    monkeypatch.undo()
    state.save(Task(id="b"), TaskStatus(state=TaskState.RUNNING))
    assert [held.task.id for held in opened(tmp_path).load()] == ["a", "b"]
