"""The thread that Raft runs on, and how calls and their answers cross between it and the owner's loop."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TypeVar

from manager.raft.delivery import Waiter
from manager.raft.errors import NotLeader, OutcomeUnknown
from manager.raft.node import RaftNode

_T = TypeVar("_T")
GIVE_WAY = 0.001
"""Seconds."""


class RaftThread:
    """A loop on a thread of its own, or (own=False) the owner's. Methods are called on the owner's loop."""

    def __init__(self, own: bool) -> None:
        self._own = own
        self._thread: threading.Thread | None = None
        self._calls: deque[Callable[[RaftNode], None]] = deque()
        self._calls_posted = False
        self._writers: set[threading.Thread] = set()
        self._asking: dict[asyncio.Future[object], None] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that Raft runs on, from `start` to `end`."""
        self.owner: asyncio.AbstractEventLoop | None = None
        """The loop that called `start`."""
        self.node: RaftNode | None = None
        """Set by Raft once it is built there."""

    # -- life

    def start(self) -> None:
        """Have a loop. Raises RuntimeError the second time."""
        if self.owner is not None:
            raise RuntimeError("started already")
        self.owner = asyncio.get_running_loop()
        if self._own:
            self.loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._run_loop, name="raft", args=(self.loop,), daemon=True
            )
            self._thread.start()
        else:
            self.loop = self.owner

    @staticmethod
    def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    async def end(self) -> None:
        """Nothing more is called from here on."""
        loop, self.loop = self.loop, None
        if self._thread is not None and loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def give_up(self) -> None:
        """Answer those whose question came too late for the node."""
        for future in list(self._asking):
            if not future.done():
                future.set_exception(OutcomeUnknown("this manager stopped before it answered"))

    # -- calls

    async def run(self, work: Coroutine[None, None, _T]) -> _T:
        """Run on the Raft loop. Raises NotLeader when it has ended."""
        if self.loop is None:
            work.close()
            raise NotLeader(None)
        if not self._own:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def call(self, work: Callable[[RaftNode], None]) -> None:
        """Call on the Raft loop; many calls make one step. Raises NotLeader when there is no node."""
        node, loop = self.node, self.loop
        if node is None or loop is None:
            raise NotLeader(None)
        self._calls.append(work)
        if not self._calls_posted:
            self._calls_posted = True
            post = loop.call_soon_threadsafe if self._own else loop.call_soon
            post(self._perform_calls, node)

    def _perform_calls(self, node: RaftNode) -> None:
        # Cleared before looking: what is called from here on is posted again.
        self._calls_posted = False
        node.perform(self._calls)

    async def ask(self, work: Callable[[RaftNode, Waiter], None]) -> object:
        """Call on the Raft loop and wait for the answer on this one."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def answer(result: object, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call(lambda node: work(node, answer))
        self._asking[future] = None
        try:
            return await future
        finally:
            del self._asking[future]

    # -- writers of snapshots

    def spawn(self, work: Callable[[], None]) -> None:
        """Run a snapshot writer: a thread, or at once in a simulator."""

        def work_and_tell() -> None:
            work()
            with contextlib.suppress(NotLeader, RuntimeError):  # Raft has stopped meanwhile
                self.call(RaftNode.kick)

        if not self._own:
            work_and_tell()
            return
        self._writers = {thread for thread in self._writers if thread.is_alive()}
        thread = threading.Thread(target=work_and_tell, name="raft-snapshot", daemon=True)
        self._writers.add(thread)
        thread.start()

    def give_way(self) -> None:
        """Between two chunks of a snapshot: the interpreter's other threads wait for each other otherwise."""
        if self._own:  # in a simulation nobody else runs
            time.sleep(GIVE_WAY)

    async def join_writers(self) -> None:
        """Wait for the snapshots that are being written."""
        for writer in self._writers:
            await asyncio.to_thread(writer.join)
