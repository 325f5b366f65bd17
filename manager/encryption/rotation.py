"""Which epochs of keys are in force, decided from the state and the time. Pure.

A new epoch comes beside the old one: every node makes keys for it, and each pair of nodes moves over when
they have shaken hands. When all are through, the old one is over. So at any time all nodes that are there
share an epoch: a node has what it was told is in force, and one alone is in force only when everyone has it.
Except one that can't get the newest: after a while nobody waits for it, as a key that a removed node knows
must not stay in force for its sake. It is cut off from encrypted networks then, until it can.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from cluster.encryption import DEFAULT_ROTATION, rotation
from cluster.errors import InvalidArgument
from cluster.objects import KeyEpochs, Network, Node
from cluster.seams import SECOND
from cluster.states import NodeState
from manager.store import View

PATIENCE = 3600 * SECOND
"""So long a rotation waits for nodes that don't get the newest epoch, and for pairs that can't reach each
other."""


@dataclass(frozen=True)
class Decision:
    """What is to be in force from now on, or else when to look again: a time, and the longest wait for it."""

    epochs: KeyEpochs | None = None
    wake: tuple[int, int] | None = None
    note: str = ""
    left_behind: tuple[str, ...] = ()  # ids of nodes that are there, and waited for no longer


def first(now: int, removed: int) -> KeyEpochs:
    """The first epoch of a cluster."""
    return KeyEpochs(newest=1, oldest=1, since=now, because="there is an encrypted network", removed=removed)


def decide(view: View, now: int) -> Decision:
    """What should be in force."""
    cluster = view.cluster()
    networks = [network for network in view.all(Network) if network.encrypted]
    if cluster is None or not networks:
        return Decision()
    epochs, removed = cluster.key_epochs, len(cluster.removed_nodes)
    if not epochs.newest:
        return Decision(first(now, removed))
    if epochs.oldest < epochs.newest:
        waiting, until = awaited(view, epochs), epochs.since + PATIENCE
        if waiting and now < until:
            return Decision(wake=(until, PATIENCE), note=f"waits for {', '.join(waiting)}")
        after = replace(epochs, oldest=epochs.newest)
        return Decision(after, left_behind=tuple(cut_off(view, after)))
    period = min(_period(network) for network in networks)
    if epochs.asked:
        because = "somebody asked for it"
    elif epochs.removed != removed:
        because = "a node was removed from the cluster"
    elif now >= epochs.since + period:
        because = "its time was over"
    else:
        return Decision(wake=(epochs.since + period, period))
    begun = KeyEpochs(
        newest=epochs.newest + 1, oldest=epochs.oldest, since=now, because=because, removed=removed
    )
    return Decision(begun)


def awaited(view: View, epochs: KeyEpochs) -> list[str]:
    """The nodes that may still need an epoch older than the newest, by id."""
    found = []
    nodes = {node.id: node for node in view.all(Node) if node.description.encryption.keys}
    for node in nodes.values():
        said = node.description.encryption
        there = node.status.state != NodeState.DOWN
        if epochs.newest not in said.keys or (there and any(peer in nodes for peer in said.behind)):
            found.append(node.id)
    return sorted(found)


def cut_off(view: View, epochs: KeyEpochs) -> list[str]:
    """The nodes that are there, but have no epoch that is in force, though they could encrypt: by id. Nothing
    of encrypted networks reaches them, nor leaves them."""
    return sorted(
        node.id
        for node in view.all(Node)
        if (said := node.description.encryption).method
        and (said.keys or said.trouble)
        and node.status.state != NodeState.DOWN
        and said.keys.keys().isdisjoint(epochs.in_force)
    )


def _period(network: Network) -> int:
    try:
        return rotation(network.spec.labels)
    except InvalidArgument:  # of an older version, which did not check it
        return DEFAULT_ROTATION
