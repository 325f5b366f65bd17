"""Stories: text files of commands (`$ …`) and what the cluster answers, played on a `World`.

Tasks are called t1, t2, … in the order in which they were made. Commands:

    nodes a b c                        ready nodes
    node a down|ready|drain|pause|active|gone
    service web replicas=3 image=v1 …  create or update (see `_spec`)
    remove web
    tick                               decide once
    work                               controllers, scheduler and agents until all is quiet
    wait 5                             seconds pass, with work
    report t1 failed                   an agent reports a state
    tasks | status | why               show tasks, the update's status, the latest reasons
"""

import re
from pathlib import Path

from cluster.objects import Node, Service, Task
from cluster.seams import SECOND
from cluster.spec import (
    ContainerSpec,
    GlobalJobMode,
    GlobalMode,
    Placement,
    ReplicatedJobMode,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from cluster.states import Availability, NodeState, TaskState
from tests.fakes.world import World


class Story:
    """Plays commands and answers in text."""

    def __init__(self) -> None:
        self.world = World()
        self._names: dict[str, str] = {}

    def play(self, script: str) -> str:
        """The script with its answers as they are now; comments and blank lines stay."""
        lines: list[str] = []
        for line in script.splitlines():
            if line.startswith("$ "):
                lines += [line, *("    " + answer for answer in self.command(line[2:]))]
            elif not line.startswith("    "):
                lines.append(line)
        return "\n".join(lines) + "\n"

    def command(self, line: str) -> list[str]:
        """Run one command; the answer's lines."""
        verb, *words = line.split()
        before = len(self.world.steps)
        getattr(self, f"_{verb}")(*words)
        steps = self.world.steps[before:]
        answer = [self._named(step) for step in steps]
        if verb in ("tasks", "status", "why"):
            answer = getattr(self, f"show_{verb}")()
        return answer

    def _named(self, text: str) -> str:
        for number, task_id in enumerate(dict.fromkeys(self._ids()), 1):
            self._names.setdefault(task_id, f"t{number}")
        for task_id, name in self._names.items():
            text = text.replace(task_id, name)
        return re.sub(r"\b[0-9a-z]{25}\b", "a task of a moment", text)

    def _ids(self) -> list[str]:
        return [*self._names, *(task.id for task in self.world.tasks())]

    def _task(self, name: str) -> Task:
        self._named("")
        task = self.world.view.get(Task, next(id for id, known in self._names.items() if known == name))
        assert task is not None
        return task

    # --- commands -------------------------------------------------------------------------------------

    def _nodes(self, *names: str) -> None:
        for name in names:
            self.world.node(name)

    def _node(self, name: str, what: str) -> None:
        if what == "gone":
            node = self.world.view.get(Node, name)
            assert node is not None
            self.world.remove(node)
        elif what.startswith("label:"):
            node = self.world.view.get(Node, name)
            assert node is not None
            key, _, value = what.removeprefix("label:").partition("=")
            spec = type(node.spec)(labels={key: value}, availability=node.spec.availability)
            self.world.put(type(node)(id=name, spec=spec, description=node.description, status=node.status))
        elif what in ("down", "ready"):
            self.world.set_node(name, NodeState(what))
        else:
            self.world.set_node(name, to=Availability(what))

    def _service(self, name: str, *settings: str) -> None:
        self.world.service(_spec(name, dict(setting.split("=", 1) for setting in settings)))

    def _remove(self, name: str) -> None:
        service = self.world.view.by_name(Service, name)
        assert service is not None
        self.world.remove(service)

    def _tick(self) -> None:
        self.world.tick()

    def _work(self) -> None:
        self.world.work()

    def _wait(self, seconds: str) -> None:
        self.world.advance(float(seconds))

    def _report(self, name: str, state: str) -> None:
        self.world.report(self._task(name), TaskState[state.upper()])

    def _tasks(self) -> None: ...

    def _status(self) -> None: ...

    def _why(self) -> None: ...

    # --- answers --------------------------------------------------------------------------------------

    def show_tasks(self) -> list[str]:
        """One line for each task."""
        return [
            self._named(
                f"{task.id} {task.name.removesuffix('.' + task.id)} on {task.node_id or '-'}: "
                f"{task.status.state.word}, desired {task.desired_state.word}, {_image(task)}"
            )
            for task in self.world.tasks()
        ]

    def show_status(self) -> list[str]:
        """The update status of each service."""
        lines = []
        for service in self.world.view.all(Service):
            status = service.update_status
            said = f"{status.state}: {self._named(status.message)}" if status else "none"
            lines.append(f"{service.spec.name}: {said}")
        return lines

    def show_why(self) -> list[str]:
        """The sentences of a decision made now, which changes nothing."""
        return [f"{subject}: {self._named(note)}" for subject, note in self.world.decide().notes.items()]


def _image(task: Task) -> str:
    return task.spec.container_spec.image if task.spec.container_spec else ""


def _spec(name: str, settings: dict[str, str]) -> ServiceSpec:
    def seconds(key: str) -> int | None:
        return int(float(settings[key]) * SECOND) if key in settings else None

    job = settings.get("mode", "").endswith("job")
    restart = RestartPolicy(
        condition=settings.get("restart", ""),
        delay=seconds("restart-delay"),
        max_attempts=int(settings.get("attempts", "0")),
        window=seconds("window"),
    )
    update = UpdateConfig(
        parallelism=int(settings.get("parallelism", "1")),
        delay=seconds("delay") or 0,
        order=settings.get("order", ""),
        failure_action=settings.get("on-failure", ""),
        max_failure_ratio=float(settings.get("ratio", "0")),
        monitor=seconds("monitor"),
    )
    return ServiceSpec(
        name=name,
        mode=_mode(settings),
        task_template=TaskSpec(
            container_spec=ContainerSpec(image=settings.get("image", "v1")),
            restart_policy=restart,
            placement=Placement(constraints=[settings["constraint"]]) if "constraint" in settings else None,
            force_update=int(settings.get("force", "0")),
        ),
        update_config=None if job else update,
        rollback_config=None if job else UpdateConfig(parallelism=1),
    )


def _mode(settings: dict[str, str]) -> ServiceMode:
    match settings.get("mode"):
        case "global":
            return ServiceMode(global_=GlobalMode())
        case "global-job":
            return ServiceMode(global_job=GlobalJobMode())
        case "job":
            total, at_once = int(settings["total"]), int(settings.get("at-once", "1"))
            return ServiceMode(
                replicated_job=ReplicatedJobMode(max_concurrent=at_once, total_completions=total)
            )
    return ServiceMode(replicated=ReplicatedMode(replicas=int(settings.get("replicas", "1"))))


def stories() -> list[Path]:
    """All story files."""
    return sorted((Path(__file__).parent / "stories").glob("*.txt"))
