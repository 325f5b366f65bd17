"""The replicated store: immutable views, watches, versioned transactions, and Raft's state machine."""

from manager.store.controller import OVERTAKEN, restarting
from manager.store.entry import MAX_BYTES, MAX_CHANGES, UnknownSchema
from manager.store.events import Event, Watch, WatchLagged
from manager.store.snapshot import DamagedSnapshot, Outcome
from manager.store.store import Proposer, Store
from manager.store.transaction import Transaction
from manager.store.view import View

__all__ = [
    "MAX_BYTES",
    "MAX_CHANGES",
    "OVERTAKEN",
    "DamagedSnapshot",
    "Event",
    "Outcome",
    "Proposer",
    "Store",
    "Transaction",
    "UnknownSchema",
    "View",
    "Watch",
    "WatchLagged",
    "restarting",
]
