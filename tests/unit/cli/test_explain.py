"""`shoal service explain` and `shoal task explain`: what they print."""

import json

from tests.fakes.engine_api import FakeEngine
from tests.unit.cli.conftest import Run

TASK = {
    "ID": "t1",
    "Name": "web.1",
    "Summary": "Task web.1 is pending for 3 min.",
    "Why": ["No node takes it, of 1 node that there is.", "Node a: its availability is drain."],
    "Placement": [],
    "History": ["Why it was made: the service had 0 of its 1 replicas."],
    "Next": ["It is tried again as soon as a node changes or a task ends."],
    "Advice": ["Bring nodes back."],
    "Nodes": [],
}
SERVICE = {
    "Summary": "Service web: 0 of 1 replicas run.",
    "Why": [],
    "Next": [],
    "Advice": ["Bring nodes back."],
    "Tasks": [TASK],
}


def test_a_service(engine: FakeEngine, run: Run) -> None:
    engine.on("GET", "/shoal/services/web/explain", SERVICE)
    done = run("service", "explain", "web")
    assert done.status == 0
    assert done.out == (
        "Service web: 0 of 1 replicas run.\n"
        "  do:     Bring nodes back.\n"
        "\n"
        "Task web.1 is pending for 3 min. (t1)\n"
        "  why:    No node takes it, of 1 node that there is.\n"
        "          Node a: its availability is drain.\n"
        "  before: Why it was made: the service had 0 of its 1 replicas.\n"
        "  next:   It is tried again as soon as a node changes or a task ends.\n"
    )


def test_a_task(engine: FakeEngine, run: Run) -> None:
    engine.on("GET", "/shoal/tasks/web.1/explain", TASK)
    done = run("task", "explain", "web.1")
    assert done.status == 0
    assert done.out.startswith("Task web.1 is pending for 3 min. (t1)\n  why:    No node takes it")
    assert "  do:     Bring nodes back.\n" in done.out


def test_all_that_is_known_as_json(engine: FakeEngine, run: Run) -> None:
    engine.on("GET", "/shoal/tasks/web.1/explain", TASK)
    assert json.loads(run("task", "explain", "--json", "web.1").out) == TASK
