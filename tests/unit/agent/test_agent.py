"""The agent between a session and its tasks: restarts, failures, leaving."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.dataplane import DataplaneChanges, NetworkRecord
from cluster.messages import AgentMessage, Applied, Assignments, ManagerMessage
from cluster.objects import NodeDescription, Secret, Task, TaskStatus
from cluster.seams import SystemClock
from cluster.spec import ContainerSpec, SecretReference, TaskSpec
from cluster.states import TaskState
from tests.fakes.executor import FakeExecutor
from worker.agent.agent import Agent
from worker.agent.executor import Found
from worker.agent.seek import SessionClosed
from worker.agent.state import AgentState

PLAIN = Task(id="plain", desired_state=TaskState.RUNNING)
WITH_SECRET = Task(
    id="secretive",
    desired_state=TaskState.RUNNING,
    spec=TaskSpec(container_spec=ContainerSpec(secrets=[SecretReference(secret_id="s", secret_name="s")])),
)


class Network:
    """Takes every batch, unless it is broken."""

    broken = False

    async def apply(self, changes: DataplaneChanges) -> None:
        if self.broken:
            raise OSError(24, "Too many open files")


class Events:
    """Nobody listens."""

    def managers_changed(self, managers: object) -> None: ...

    def role_changed(self, role: str) -> None: ...

    def removed(self, message: str) -> None: ...


class Channel:
    """The session's other end."""

    def __init__(self) -> None:
        self.sent: list[AgentMessage] = []

    async def send(self, message: AgentMessage) -> None:
        self.sent.append(message)

    async def receive(self) -> ManagerMessage:
        raise NotImplementedError

    async def close(self) -> None: ...


class Node:
    """An agent that can be started again over the same disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.executor = FakeExecutor()
        self.network = Network()
        self.channel = Channel()
        self.running: asyncio.Task[None] | None = None

    async def start(self) -> Agent:
        await self.stop()
        agent = Agent(
            executor=self.executor,
            network=self.network,
            logs=None,  # type: ignore[arg-type]
            state=AgentState(self.directory),
            events=Events(),
            describe=NodeDescription,
            address="192.0.2.1",
            data_path_address="192.0.2.1",
            clock=SystemClock(),
        )
        await agent.start()
        self.running = asyncio.create_task(agent.run())
        await agent.opened(self.channel)
        return agent

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait((self.running,))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    yield node
    await node.stop()


async def until(agent: Agent, task_id: str, state: TaskState) -> None:
    async with asyncio.timeout(5):
        while {task.id: status.state for task, status in agent.tasks}.get(task_id) != state:
            await asyncio.sleep(0.01)


async def test_a_restarted_agent_waits_for_the_secrets_of_what_is_yet_to_be_prepared(node: Node) -> None:
    node.executor.prepare_gate = asyncio.Event()
    agent = await node.start()
    secret = Secret(id="s")
    tasks = (PLAIN, WITH_SECRET)
    await agent.received(Assignments(sequence=1, full=True, tasks=tasks, secrets=(secret,)))
    await until(agent, "secretive", TaskState.PREPARING)
    node.executor.calls.clear()
    node.executor.prepare_gate = None
    agent = await node.start()
    await until(agent, "plain", TaskState.RUNNING)
    assert "prepare secretive" not in node.executor.calls
    await agent.received(Assignments(sequence=1, full=True, tasks=tasks, secrets=(secret,)))
    await until(agent, "secretive", TaskState.RUNNING)
    assert agent.secrets == {"s": secret}


async def test_what_was_held_back_and_is_no_longer_assigned_is_removed(node: Node) -> None:
    node.executor.prepare_gate = asyncio.Event()
    agent = await node.start()
    await agent.received(Assignments(sequence=1, full=True, tasks=(WITH_SECRET,), secrets=(Secret(id="s"),)))
    await until(agent, "secretive", TaskState.PREPARING)
    agent = await node.start()
    await agent.received(Assignments(sequence=1, full=True))
    async with asyncio.timeout(5):
        while "remove secretive" not in node.executor.calls or agent.tasks:
            await asyncio.sleep(0.01)
    assert AgentState(node.directory).load() == []


async def test_an_assignment_that_fails_ends_the_session_unacknowledged(node: Node) -> None:
    agent = await node.start()
    node.network.broken = True
    changes = DataplaneChanges(networks=(NetworkRecord(id="n", name="n", driver="overlay"),))
    message = Assignments(sequence=1, full=True, dataplane=changes)
    with pytest.raises(SessionClosed, match="Too many open files"):
        await agent.received(message)
    assert node.channel.sent == []
    node.network.broken = False
    await agent.received(message)
    assert node.channel.sent == [Applied(sequence=1)]


async def test_leaving_removes_every_task_and_forgets(node: Node) -> None:
    agent = await node.start()
    await agent.received(Assignments(sequence=1, full=True, tasks=(PLAIN,)))
    await until(agent, "plain", TaskState.RUNNING)
    await agent.abandon()
    assert node.executor.calls[-2:] == ["stop plain", "remove plain"]
    assert list(node.directory.iterdir()) == []


async def test_a_status_is_stored_before_the_leader_hears_of_it(node: Node) -> None:
    agent = await node.start()
    await agent.received(Assignments(sequence=1, full=True, tasks=(PLAIN,)))
    await until(agent, "plain", TaskState.RUNNING)
    again = AgentState(node.directory)
    again.open()
    (held,) = again.load()
    again.close()
    assert held.status.state is TaskState.RUNNING
    assert isinstance(held.status, TaskStatus)


async def test_a_container_that_the_agent_has_forgotten_is_stopped_and_removed(node: Node) -> None:
    """Its memory is not synced: after a loss of power it may lack a task whose container is there."""
    node.executor.found["lost"] = Found.RUNNING
    agent = await node.start()
    await agent.received(Assignments(sequence=1, full=True, tasks=(PLAIN,)))
    async with asyncio.timeout(5):
        while "remove lost" not in node.executor.calls:
            await asyncio.sleep(0.01)
    assert node.executor.calls.index("stop lost") < node.executor.calls.index("remove lost")
    assert "lost" not in [task.id for task, _ in agent.tasks]
