"""An agent at the dispatcher's other end: a channel in memory, and what the node has been told so far."""

import asyncio

from cluster.dataplane import DataplaneChanges
from cluster.messages import (
    AgentMessage,
    Applied,
    Assignments,
    Hello,
    ManagerMessage,
    StatusReport,
    TaskStatusUpdate,
)
from cluster.objects import NodeDescription, Task, TaskStatus
from cluster.states import Role, TaskState
from manager.dispatcher import ChannelClosed, Dispatcher, PeerIdentity


class Knowledge:
    """What a node knows after applying every assignment in turn, as a worker must."""

    def __init__(self) -> None:
        self.sequence = 0
        self.tasks: dict[str, Task] = {}
        self.secrets: set[str] = set()
        self.configs: set[str] = set()
        self.networks: dict[str, object] = {}
        self.peers: dict[str, object] = {}
        self.endpoints: dict[tuple[str, str], object] = {}
        self.services: dict[tuple[str, str], object] = {}

    def apply(self, message: Assignments) -> None:
        """Take in one message; sequences must have no gap."""
        assert message.sequence == self.sequence + 1 or message.full
        if message.full:
            self.__init__()  # type: ignore[misc]
        self.sequence = message.sequence
        self.tasks.update({task.id: task for task in message.tasks})
        for id in message.removed_tasks:
            self.tasks.pop(id, None)
        self.secrets |= {secret.id for secret in message.secrets}
        self.secrets -= set(message.removed_secrets)
        self.configs |= {config.id for config in message.configs}
        self.configs -= set(message.removed_configs)
        self._apply_dataplane(message.dataplane)

    def _apply_dataplane(self, changes: DataplaneChanges) -> None:
        self.networks.update({record.id: record for record in changes.networks})
        self.peers.update({record.node_id: record for record in changes.peers})
        self.endpoints.update({(record.network_id, record.task_id): record for record in changes.endpoints})
        self.services.update({(record.network_id, record.service_id): record for record in changes.services})
        for network_id in changes.removed_networks:
            del self.networks[network_id]
        for node_id in changes.removed_peers:
            del self.peers[node_id]
        for endpoint in changes.removed_endpoints:
            del self.endpoints[endpoint]
        for service in changes.removed_services:
            del self.services[service]


class MemoryChannel:
    """A Channel whose agent's end is two queues."""

    def __init__(self) -> None:
        self.to_agent: asyncio.Queue[ManagerMessage] = asyncio.Queue()
        self.to_manager: asyncio.Queue[AgentMessage | None] = asyncio.Queue()
        self.closed = False
        self.flowing = asyncio.Event()  # cleared: the agent reads nothing, and `send` waits
        self.flowing.set()

    async def send(self, message: ManagerMessage) -> None:
        """To the agent."""
        await self.flowing.wait()
        if self.closed:
            raise ChannelClosed("closed")
        self.to_agent.put_nowait(message)

    async def receive(self) -> AgentMessage:
        """From the agent."""
        message = await self.to_manager.get()
        if message is None or self.closed:
            raise ChannelClosed("the agent went away")
        return message

    async def close(self) -> None:
        """Close."""
        self.closed = True


class FakeAgent:
    """Opens a session, applies assignments, and reports what a test tells it to."""

    def __init__(self, dispatcher: Dispatcher, node_id: str, role: Role = Role.WORKER) -> None:
        self.node_id = node_id
        self.channel = MemoryChannel()
        self.knows = Knowledge()
        self.messages: list[ManagerMessage] = []
        self.applies = True  # False: never answers Applied
        self._reports = 0
        hello = Hello(
            description=NodeDescription(hostname=node_id), address=f"10.0.0.{int(node_id[-1])}:2377"
        )
        self.say(hello)
        identity = PeerIdentity(node_id, role, "10.0.0.9")
        self.serving = asyncio.create_task(dispatcher.serve(identity, self.channel))

    def say(self, message: AgentMessage) -> None:
        """Send a message."""
        self.channel.to_manager.put_nowait(message)

    def drop(self) -> None:
        """Lose the connection."""
        self.channel.to_manager.put_nowait(None)

    def listen(self) -> list[ManagerMessage]:
        """Take and apply what has come; returns it."""
        fresh = []
        while not self.channel.to_agent.empty():
            message = self.channel.to_agent.get_nowait()
            fresh.append(message)
            if isinstance(message, Assignments):
                self.knows.apply(message)
                if self.applies:
                    self.say(Applied(sequence=message.sequence))
        self.messages += fresh
        return fresh

    def report(self, *task_ids: str, state: TaskState = TaskState.RUNNING, healthy: bool = True) -> int:
        """Report a state of tasks; returns the report's number."""
        self._reports += 1
        status = TaskStatus(state=state, healthy=healthy)
        updates = tuple(TaskStatusUpdate(task_id, status) for task_id in task_ids)
        self.say(StatusReport(number=self._reports, updates=updates))
        return self._reports
