"""The checker of tasks: one that goes back, and a read that does, are noticed."""

from tests.chaos.history import TaskSeen
from tests.chaos.task_states import check


def seen(version: int, state: str, begin: int, end: int, desired: str = "running") -> TaskSeen:
    return TaskSeen("t", version, state, desired, begin, end)


def test_tasks_that_go_forward() -> None:
    assert check([]) == []
    forward = [seen(3, "pending", 0, 1), seen(5, "running", 2, 3), seen(9, "failed", 4, 5, "shutdown")]
    assert check(forward) == []
    beside = [seen(3, "pending", 0, 10), seen(5, "running", 1, 2)]  # they overlapped: either may come first
    assert check(beside) == []


def test_a_state_that_goes_back() -> None:
    assert any("went back" in text for text in check([seen(3, "running", 0, 1), seen(5, "starting", 2, 3)]))
    desired = [seen(3, "running", 0, 1, "shutdown"), seen(5, "running", 2, 3)]
    assert any("went back" in text for text in check(desired))


def test_a_read_that_goes_back() -> None:
    stale = [seen(5, "running", 0, 1), seen(3, "pending", 2, 3)]
    assert any("a read of a task" in text for text in check(stale))


def test_one_version_in_two_ways() -> None:
    assert any("two ways" in text for text in check([seen(3, "pending", 0, 1), seen(3, "running", 2, 3)]))
