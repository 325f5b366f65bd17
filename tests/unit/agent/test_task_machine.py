"""The task machine moves every task towards what is desired and never past it."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.states import TaskState
from worker.agent.task_machine import Action, ended_state, next_action

STATES = st.sampled_from(list(TaskState))
# What each action makes of the state, when nothing goes wrong.
RESULT = {
    Action.ACCEPT: TaskState.ACCEPTED,
    Action.PREPARE: TaskState.READY,
    Action.START: TaskState.RUNNING,
    Action.STOP: TaskState.SHUTDOWN,
}
RESTING = {Action.AWAIT_START, Action.AWAIT_EXIT, Action.AWAIT_REMOVAL, Action.REMOVE}


def story(state: TaskState, desired: TaskState, removed: bool = False) -> list[Action]:
    """All actions until the task rests."""
    actions = []
    while True:
        action = next_action(state, desired, removed)
        actions.append(action)
        if action in RESTING:
            return actions
        state = RESULT[action]


def test_a_task_is_prepared_started_and_watched() -> None:
    assert story(TaskState.ASSIGNED, TaskState.RUNNING) == [
        Action.ACCEPT,
        Action.PREPARE,
        Action.START,
        Action.AWAIT_EXIT,
    ]


def test_a_task_that_should_only_be_ready_waits() -> None:
    assert story(TaskState.ASSIGNED, TaskState.READY)[-1] is Action.AWAIT_START


def test_a_running_task_is_stopped_and_kept_for_its_logs() -> None:
    assert story(TaskState.RUNNING, TaskState.SHUTDOWN) == [Action.STOP, Action.AWAIT_REMOVAL]


def test_a_dropped_task_is_stopped_and_removed() -> None:
    assert story(TaskState.RUNNING, TaskState.RUNNING, removed=True) == [Action.STOP, Action.REMOVE]


def test_a_job_runs_to_completion() -> None:
    assert story(TaskState.ASSIGNED, TaskState.COMPLETE)[-1] is Action.AWAIT_EXIT


@given(state=STATES, desired=STATES, removed=st.booleans())
def test_every_story_ends_and_never_lowers_the_state(
    state: TaskState, desired: TaskState, removed: bool
) -> None:
    for action in story(state, desired, removed):
        if action in RESULT:
            assert RESULT[action] > state
            state = RESULT[action]
    assert not (removed and action is not Action.REMOVE), "a dropped task always ends in removal"


def test_exit_codes() -> None:
    assert ended_state(0) is TaskState.COMPLETE
    assert ended_state(137) is TaskState.FAILED
