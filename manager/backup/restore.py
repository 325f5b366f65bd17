"""The files of a manager that begins with a backed-up state, as the only one of its cluster.

Everything is made in a directory of its own, which then takes the place of the real one at once.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from cluster.identity import Identity, create_csr
from cluster.ids import new_id
from cluster.objects import ManagerStatus, Node, NodeStatus
from cluster.seams import Clock, Random
from cluster.spec import NodeSpec
from cluster.states import NodeState, Role
from manager.backup.file import Contents
from manager.ca.authority import issue
from manager.ca.external import ExternalCAs, https
from manager.ca.roles import leave_behind
from manager.ca.root import trusted, wanted_tls
from manager.keys.locks import Lock, lock_of
from manager.raft.disk import Disk
from manager.raft.errors import FailStop
from manager.raft.journal import Journal, Origin
from manager.raft.keyring import open_keyring
from manager.raft.membership import NO_OP
from manager.raft.snapshot import SnapshotMeta, put_snapshot
from manager.store import snapshot
from manager.store.transaction import Transaction


class Place(NamedTuple):
    """Where the manager will be. Addresses: "ip:port", and the IP of container traffic."""

    advertise: str
    data_path: str


class Restored(NamedTuple):
    """Who the manager is."""

    node_id: str
    identity: Identity
    data_path_port: int


def restore(
    contents: Contents, place: Place, directory: Path, disk: Disk, clock: Clock, random: Random
) -> Restored:
    """Write a manager's Raft state into the empty directory; returns its new identity.

    The node is new, so that no vote of an old manager binds it. The old managers stay known, as workers, as
    after `--force-new-cluster`. With autolock its keys are locked from the first. A CA outside the cluster
    is asked for the certificate. For a thread without an event loop. Raises OSError, Unavailable.
    """
    cluster, node_id = contents.cluster, new_id(random)
    generation = cluster.generation + 1
    key, csr = create_csr()
    outside = ExternalCAs(https(lambda: None))
    certificate = asyncio.run(
        issue(cluster, csr, outside, node_id=node_id, role=Role.MANAGER, now=clock.now())
    )
    index = max(contents.view.index, 1) + 1
    tx = Transaction(contents.view)
    host = place.advertise.rpartition(":")[0]
    tx.create(
        Node(
            id=node_id,
            spec=NodeSpec(labels={}, role=Role.MANAGER),
            role=Role.MANAGER,
            status=NodeStatus(state=NodeState.UNKNOWN, address=host),
            manager_status=ManagerStatus(address=place.advertise),
            data_path_address=place.data_path or host,
            tls=wanted_tls(cluster),
        )
    )
    leave_behind(tx, {node_id}, generation)
    view, _ = tx.commit(index, clock.now())
    members = {node_id: place.advertise}
    _write_raft(
        disk,
        directory,
        Origin(cluster.id, node_id, members),
        index,
        generation,
        snapshot.write(view, []),
        lock_of(cluster),
        random,
    )
    return Restored(node_id, Identity(certificate, key, trusted(cluster.root_ca)), cluster.data_path_port)


def _write_raft(
    disk: Disk,
    directory: Path,
    origin: Origin,
    index: int,
    generation: int,
    chunks: Iterator[bytes],
    lock: Lock,
    random: Random,
) -> None:
    """The snapshot, and a log that begins right behind it."""

    def failed(reason: str) -> NoReturn:
        raise FailStop(reason)

    disk.make_directory(directory)
    keyring = open_keyring(disk, directory, origin.cluster_id, origin.node_id, random, (lock,))
    previous, last = (NO_OP, index - 1, 1), (NO_OP, index, 1)
    meta = SnapshotMeta(last, previous, origin.members, generation)
    put_snapshot(disk, directory / "snapshot", keyring, meta, chunks)
    journal = Journal(disk, directory, origin, keyring, failed)
    journal.setCurrentTerm(1, None)
    journal.reset([previous, last])
    journal.close()
