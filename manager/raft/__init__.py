"""The replicated log of the managers."""

import manager.raft.stock  # noqa: F401 - first
from manager.raft.delivery import StateMachine
from manager.raft.engine import Raft
from manager.raft.errors import FailStop, NotLeader, OutcomeUnknown, Overloaded, RaftCorrupt, TooLarge
from manager.raft.network import TlsMaterial
from manager.raft.status import PeerStatus, RaftStatus
from manager.raft.timing import RaftLimits, RaftTiming
from manager.raft.wire import ALPN

__all__ = [
    "ALPN",
    "FailStop",
    "NotLeader",
    "OutcomeUnknown",
    "Overloaded",
    "PeerStatus",
    "Raft",
    "RaftCorrupt",
    "RaftLimits",
    "RaftStatus",
    "RaftTiming",
    "StateMachine",
    "TlsMaterial",
    "TooLarge",
]
