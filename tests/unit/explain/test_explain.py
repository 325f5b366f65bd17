"""The sentences of `shoal service explain` and `shoal task explain`, as golden stories.

`STORIES=write` writes them anew, for review. Besides the orchestrators' commands:

    explain web            the service
    task t1                a task
"""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.objects import Endpoint, Service
from cluster.states import TaskState
from manager.api.explain import service_json, task_json
from manager.explain import explain_service, explain_task
from tests.unit.orchestrator.story import Story

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))


class ExplainedStory(Story):
    """A story that also asks why."""

    def command(self, line: str) -> list[str]:
        verb, _, name = line.partition(" ")
        if verb == "explain":
            service = self.world.view.by_name(Service, name)
            assert service is not None
            told = service_json(explain_service(self.world.view, service, self.world.now))
            return self._lines(told) + ["  " + words for task in told["Tasks"] for words in self._lines(task)]
        if verb == "task":
            told = task_json(explain_task(self.world.view, self._task(name), self.world.now))
            return self._lines(told)
        super().command(line)  # what was decided is told elsewhere
        self._allocate()
        if verb in ("work", "wait"):
            self.world.work()
        return []

    def _allocate(self) -> None:
        """The allocator's part, which the orchestrators' world does not have."""
        for service in self.world.view.all(Service):
            if service.endpoint is None:
                self.world.put(replace(service, endpoint=Endpoint()))
        for task in self.world.tasks():
            if task.status.state == TaskState.NEW:
                self.world.report(task, TaskState.PENDING)

    def _lines(self, told: dict[str, object]) -> list[str]:
        lines = [str(told["Summary"])]
        for key in ("Why", "Placement", "History", "Next", "Advice"):
            lines += [f"{key}: {words}" for words in told.get(key) or ()]  # type: ignore[attr-defined]
        return [self._named(line) for line in lines]


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    script = path.read_text()
    played = ExplainedStory().play(script)
    if os.environ.get("STORIES") == "write":
        path.write_text(played)
    assert played == script
