"""The private parts of pysyncobj 0.3.17 that Shoal reads or replaces, in one place.

`check_hooks` fails at start if another version is installed. `Engine` gives the private state plain names.
"""

import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import cast

import pysyncobj.syncobj as engine_module
from pysyncobj import SyncObj

from cluster.seams import SECOND, Clock, SystemClock
from manager.raft.journal import Journal
from manager.raft.peer import Peer

PINNED_VERSION = "0.3.17"
FOLLOWER, CANDIDATE, LEADER = 0, 1, 2

_REPLACED = (
    "onMessageReceived",
    "doApplyCommand",
    "connectedToAnyone",
    "loadDumpFile",
    "deleteEntriesTo",
    "generateRaftTimeout",
    "sendAppendEntries",
    "onNodeConnected",
    "onNodeDisconnected",
)
_CALLED = (
    "doChangeCluster",
    "setCurrentTerm",
    "setState",
    "updateClusterConfiguration",
    "tryLogCompaction",
)


class _Time(threading.local):
    clock: Clock = SystemClock()


_time = _Time()


def _monotonic() -> float:
    return _time.clock.monotonic() / SECOND


def use_clock(clock: Clock) -> None:
    """Let pysyncobj see this clock in this thread. It reads a module-wide function, so each entry sets it."""
    _time.clock = clock


engine_module.monotonicTime = _monotonic


def check_hooks() -> None:
    """Raise RuntimeError unless pysyncobj is the version that the overrides were written for."""
    found = version("pysyncobj")
    missing = [name for name in _REPLACED + _CALLED if not hasattr(SyncObj, f"_SyncObj__{name}")]
    if found != PINNED_VERSION or missing or not hasattr(SyncObj, "_checkCommandsToApply"):
        raise RuntimeError(
            f"Shoal's Raft needs pysyncobj {PINNED_VERSION} exactly, and {found} is installed "
            f"(missing hooks: {', '.join(missing) or 'none'}): pip install pysyncobj=={PINNED_VERSION}"
        )


class NoPoller:
    """pysyncobj polls sockets in its tick; ours are asyncio's."""

    def poll(self, timeout: float) -> None:
        """Nothing to poll."""


class Engine(SyncObj):  # type: ignore[misc]
    """SyncObj with plain names for the private state that Shoal's overrides use.

    Plain methods, not properties: SyncObj's constructor evaluates every property before its state exists.
    """

    def journal(self) -> Journal:
        journal: Journal = self._SyncObj__raftLog
        return journal

    def state(self) -> int:
        state: int = self._SyncObj__raftState
        return state

    def leader(self) -> Peer | None:
        peer: Peer | None = self._SyncObj__raftLeader
        return peer

    def set_leader(self, peer: Peer | None) -> None:
        self._SyncObj__raftLeader = peer

    def set_term(self, term: int, vote: str | None = None) -> None:
        self._SyncObj__setCurrentTerm(term, vote)

    def become_follower(self) -> None:
        self._SyncObj__setState(FOLLOWER)

    def set_commit_index(self, index: int) -> None:
        self._SyncObj__raftCommitIndex = index
        self.journal().setRaftCommitIndex(index)

    def set_last_applied(self, index: int) -> None:
        self._SyncObj__raftLastApplied = index

    def no_op_index(self) -> int:
        """Index of the entry that opened this node's leadership; 0 if it never led."""
        return cast("int | None", self._SyncObj__noopIDx) or 0

    def next_index(self) -> dict[Peer, int]:
        indexes: dict[Peer, int] = self._SyncObj__raftNextIndex
        return indexes

    def match_index(self) -> dict[Peer, int]:
        indexes: dict[Peer, int] = self._SyncObj__raftMatchIndex
        return indexes

    def last_response(self) -> dict[Peer, float]:
        moments: dict[Peer, float] = self._SyncObj__lastResponseTime
        return moments

    def voters(self) -> set[Peer]:
        """The other voting members."""
        peers: set[Peer] = self._SyncObj__otherNodes
        return peers

    def learners(self) -> set[Peer]:
        """Peers that receive the log and don't vote: pysyncobj's read-only nodes."""
        peers: set[Peer] = self._SyncObj__readonlyNodes
        return peers

    def connected(self) -> set[Peer]:
        peers: set[Peer] = self._SyncObj__connectedNodes
        return peers

    def transferring(self) -> bool:
        """Whether the leader told this node to take over."""
        return bool(self._SyncObj__transferInProgress)

    def end_transfer(self) -> None:
        self._SyncObj__transferInProgress = False

    def postpone_election(self) -> None:
        self._SyncObj__raftElectionDeadline = _monotonic() + self._SyncObj__generateRaftTimeout()

    def election_deadline(self) -> float:
        deadline: float = self._SyncObj__raftElectionDeadline
        return deadline

    def elect_at_once(self) -> None:
        self._SyncObj__raftElectionDeadline = 0.0

    def send_entries_now(self) -> None:
        self._SyncObj__newAppendEntriesTime = 0.0

    def next_heartbeat(self) -> float:
        moment: float = self._SyncObj__newAppendEntriesTime
        return moment

    def waiting(self) -> dict[int, list[tuple[int, Callable[[object, int], None]]]]:
        """Call-backs of this leader's entries by index: (term, call-back)."""
        return cast(
            dict[int, list[tuple[int, Callable[[object, int], None]]]], self._SyncObj__commandsWaitingCommit
        )

    def compaction_wanted(self) -> None:
        self._SyncObj__forceLogCompaction = True

    def now(self) -> float:
        """Seconds, on the clock in use."""
        return _monotonic()
