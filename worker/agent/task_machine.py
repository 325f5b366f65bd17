"""What to do next with a task: one pure function over its state and its desired state.

SwarmKit's task model (design/task_model.md): the observed state only rises, the managers set the desired
state, the agent moves the one towards the other and never past what is desired.
"""

from enum import Enum, auto

from cluster.states import TaskState


class Action(Enum):
    """The next thing that the task's driver does."""

    ACCEPT = auto()  # acknowledge the assignment
    PREPARE = auto()  # image, network, container
    AWAIT_START = auto()  # ready, but not wanted to run yet
    START = auto()  # start the container, wait until it is healthy
    AWAIT_EXIT = auto()  # running as desired
    STOP = auto()  # signal, wait, record
    AWAIT_REMOVAL = auto()  # ended; its logs stay readable
    REMOVE = auto()  # forget everything


def next_action(state: TaskState, desired: TaskState, removed: bool) -> Action:
    """The next action for a task in `state` that should be in `desired`.

    `removed` is true once the managers have dropped the task: nothing of it may stay on the node.
    """
    if state > TaskState.RUNNING:
        return Action.REMOVE if removed or desired >= TaskState.REMOVE else Action.AWAIT_REMOVAL
    if removed or desired >= TaskState.SHUTDOWN:
        return Action.STOP
    if state < TaskState.ACCEPTED:
        return Action.ACCEPT
    if state < TaskState.READY:
        return Action.PREPARE
    if desired < TaskState.RUNNING:
        return Action.AWAIT_START
    if state < TaskState.RUNNING:
        return Action.START
    return Action.AWAIT_EXIT


def ended_state(exit_code: int) -> TaskState:
    """The state of a task whose container ended by itself."""
    return TaskState.COMPLETE if exit_code == 0 else TaskState.FAILED
