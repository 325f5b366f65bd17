"""The agent of one node: holds its assignments, drives its tasks, feeds its network plane."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from cluster.dataplane import DataplaneChanges, NetworkRecord
from cluster.errors import ShoalError
from cluster.messages import (
    Applied,
    Assignments,
    DescriptionChanged,
    Hello,
    LogCancel,
    LogRequest,
    ManagerAddress,
    ManagerMessage,
    Removed,
    RoleChanged,
    StatusAck,
)
from cluster.objects import Config, NodeDescription, Secret, Task, TaskStatus
from cluster.seams import Clock
from cluster.states import TaskState
from worker.agent.driver import TaskDriver
from worker.agent.executor import Executor
from worker.agent.log_server import LogServer, LogSource
from worker.agent.records import DataplaneRecords
from worker.agent.reporter import Reporter
from worker.agent.seek import Channel, SessionClosed
from worker.agent.state import AgentState, Assigned

log = logging.getLogger("shoal.agent")


class NetworkPlane(Protocol):
    """The part of netplane that the agent feeds."""

    async def apply(self, changes: DataplaneChanges) -> None:
        """Put a batch into the kernel."""


class NodeEvents(Protocol):
    """What the daemon wants to hear from the agent."""

    def managers_changed(self, managers: Sequence[ManagerAddress]) -> None:
        """The managers to remember."""

    def role_changed(self, role: str) -> None:
        """The node's certificate should be renewed for this role."""

    def removed(self, message: str) -> None:
        """The node is no longer a member."""


class Agent:
    """Implements `session.SessionHandler`. Call `start` once, then keep `run` going with a session."""

    def __init__(
        self,
        *,
        executor: Executor,
        network: NetworkPlane,
        logs: LogSource,
        state: AgentState,
        events: NodeEvents,
        describe: Callable[[], NodeDescription],
        address: str,
        data_path_address: str,
        clock: Clock,
        trust_root: Callable[[], str] = lambda: "",
    ) -> None:
        """`trust_root`: the root certificates that this node trusts at present (PEM)."""
        self._trust_root = trust_root
        self._executor = executor
        self._network = network
        self._state = state
        self._events = events
        self._describe = describe
        self._address = address
        self._data_path_address = data_path_address
        self._clock = clock
        self._drivers: dict[str, TaskDriver] = {}
        self._held: dict[str, Assigned] = {}  # after a restart: wait for their secrets and configs
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ended: asyncio.Queue[str] = asyncio.Queue()
        self._reporter = Reporter()
        self._records = DataplaneRecords()
        self._logs = LogServer(logs)
        self._channel_tasks: list[asyncio.Task[None]] = []
        self._described = NodeDescription()
        self.secrets: dict[str, Secret] = {}
        self.configs: dict[str, Config] = {}

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what ran before: network records first, then the tasks."""
        self._state.open()
        records = self._state.load_dataplane()
        if records is not None:
            self._records.apply(records)
            await self._network.apply(records)
        for assigned in self._state.load():
            if _lacks_files(assigned):
                self._held[assigned.task.id] = assigned
                continue
            self._begin(assigned.task, assigned.status)
            self._reporter.put(assigned.task.id, assigned.status)

    async def run(self) -> None:
        """Watch over the drivers: a driver that dies by an error takes the daemon with it, loudly."""
        try:
            while True:
                task_id = await self._ended.get()
                running = self._running.pop(task_id, None)
                if running is not None:
                    await running
                if self._drivers.pop(task_id, None) is not None:
                    self._state.forget(task_id)
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        """Stop driving; containers run on."""
        await self._close_channel_tasks()
        self._logs.close()
        for running in self._running.values():
            running.cancel()
        if self._running:
            await asyncio.wait(self._running.values())

    async def abandon(self) -> None:
        """The node leaves its cluster: stop and remove every task, forget everything."""
        await self._close_channel_tasks()
        self._logs.close()
        self._begin_held()
        self._begin_forgotten()
        for driver in self._drivers.values():
            driver.remove()
        if self._running:
            await asyncio.wait(list(self._running.values()))
        self._state.clear()

    @property
    def networks(self) -> dict[str, NetworkRecord]:
        """The cluster's networks that this node knows, by id."""
        return self._records.networks

    @property
    def tasks(self) -> list[tuple[Task, TaskStatus]]:
        """This node's tasks as the agent sees them."""
        return [(driver.task, driver.status) for driver in self._drivers.values()]

    # --- session.SessionHandler ---------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Introduces the node."""
        self._described = self._describe()
        return Hello(
            description=self._described,
            address=self._address,
            data_path_address=self._data_path_address,
            trust_root=self._trust_root(),
        )

    async def opened(self, channel: Channel) -> None:
        """Report everything not yet acknowledged through the new channel."""
        await self._close_channel_tasks()
        self._reporter.reset()
        self._logs.reset(channel)
        self._channel = channel
        self._channel_tasks = [asyncio.create_task(self._report_until_closed(channel))]
        await self.redescribe()  # it may have changed since the hello

    async def received(self, message: ManagerMessage) -> None:
        """Act on one message of the leader's."""
        match message:
            case Assignments():
                try:
                    await self._assign(message)
                except (ShoalError, OSError) as error:
                    # Not done, so not acknowledged: the next session begins with all of it again.
                    log.error("an assignment failed", extra={"error": str(error)})
                    raise SessionClosed(f"this node failed to do what it was told: {error}") from error
                await self._channel.send(Applied(sequence=message.sequence))
            case StatusAck(number=number):
                self._reporter.acknowledged(number)
            case LogRequest():
                self._logs.begin(message)
            case LogCancel(request=request):
                self._logs.cancel(request)
            case RoleChanged(role=role):
                self._events.role_changed(role)
            case Removed(message=text):
                self._events.removed(text)

    def managers_changed(self, managers: Sequence[ManagerAddress]) -> None:
        """Pass on to the daemon, which keeps them on disk."""
        self._events.managers_changed(managers)

    async def redescribe(self) -> None:
        """Tell the leader if the node's description changed since the last hello."""
        description = self._describe()
        if description != self._described and self._channel_tasks:
            self._described = description
            await self._channel.send(DescriptionChanged(description=description))

    # --- assignments --------------------------------------------------------------------------------------

    async def _assign(self, message: Assignments) -> None:
        if message.full:
            self.secrets.clear()
            self.configs.clear()
        self.secrets.update((secret.id, secret) for secret in message.secrets)
        self.configs.update((config.id, config) for config in message.configs)
        if not message.dataplane.empty:
            self._records.apply(message.dataplane)
            await self._network.apply(message.dataplane)
            self._state.save_dataplane(self._records.full())
        for task in message.tasks:
            self._assign_task(task)
        gone = set(message.removed_tasks)
        if message.full:
            self._begin_held()  # all that are left of them are no longer assigned
            self._begin_forgotten()
            gone |= self._drivers.keys() - {task.id for task in message.tasks}
        for task_id in gone & self._drivers.keys():
            self._drivers[task_id].remove()
        for secret_id in message.removed_secrets:
            self.secrets.pop(secret_id, None)
        for config_id in message.removed_configs:
            self.configs.pop(config_id, None)

    def _assign_task(self, task: Task) -> None:
        driver = self._drivers.get(task.id)
        if driver is None:
            held = self._held.pop(task.id, None)
            self._begin(task, held.status if held else task.status)
        else:
            driver.update(task)
            if driver.status.state > task.status.state:
                self._reporter.put(task.id, driver.status)  # the leader's news of it is old
        self._state.save(task, self._drivers[task.id].status)

    def _begin_held(self) -> None:
        for assigned in self._held.values():
            self._begin(assigned.task, assigned.status)
        self._held.clear()

    def _begin_forgotten(self) -> None:
        """Take up containers of tasks that this agent does not remember, as its memory is not synced: they
        are stopped and removed like those of any task that is no longer assigned."""
        for task_id in self._executor.remains():
            if task_id not in self._drivers:
                log.warning("found a container of a task that is not assigned here", extra={"task": task_id})
                self._begin(Task(id=task_id), TaskStatus(state=TaskState.RUNNING))

    def _begin(self, task: Task, status: TaskStatus) -> None:
        driver = TaskDriver(task, status, self._executor, self._clock, self._report)
        self._drivers[task.id] = driver
        running = asyncio.create_task(driver.run(), name=f"task {task.id}")
        self._running[task.id] = running
        running.add_done_callback(lambda _: self._ended.put_nowait(task.id))

    def _report(self, task: Task, status: TaskStatus) -> None:
        self._state.save(task, status)
        self._reporter.put(task.id, status)

    async def _report_until_closed(self, channel: Channel) -> None:
        await self._reporter.run(channel)

    async def _close_channel_tasks(self) -> None:
        for task in self._channel_tasks:
            task.cancel()
        if self._channel_tasks:
            await asyncio.wait(self._channel_tasks)
        for task in self._channel_tasks:
            if not task.cancelled():
                task.exception()  # a broken channel also ended the session, which said so
        self._channel_tasks = []


def _lacks_files(assigned: Assigned) -> bool:
    """Whether a task is yet to be prepared with secrets or configs, which this node does not keep."""
    spec = assigned.task.spec.container_spec
    return (
        assigned.status.state < TaskState.STARTING and spec is not None and bool(spec.secrets or spec.configs)
    )
