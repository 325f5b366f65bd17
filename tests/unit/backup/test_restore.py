"""A manager that begins with a restored state: it leads alone, has all of it, and knows the old nodes."""

import asyncio
import io
import random
from pathlib import Path

from cluster.identity import check_identity
from cluster.objects import Cluster, ManagerStatus, Node, Secret
from cluster.seams import SECOND, SystemClock
from cluster.spec import NodeSpec
from cluster.states import Role
from manager.backup.file import Contents, read_backup
from manager.backup.restore import Place, restore
from manager.raft import Raft, TlsMaterial
from manager.raft.disk import SystemDisk
from manager.store import Store
from manager.store.transaction import Transaction
from tests.unit.backup.test_file import PASSPHRASE, backup, state


def old_cluster() -> Contents:
    """With a second manager and a worker."""
    tx = Transaction(state())
    spec = NodeSpec(role=Role.MANAGER)
    tx.create(Node(id="m2", spec=spec, role=Role.MANAGER, manager_status=ManagerStatus("192.0.2.2:2377")))
    tx.create(Node(id="w", spec=NodeSpec(role=Role.WORKER)))
    return read_backup(io.BytesIO(backup(tx.commit(8, 1)[0])).read, PASSPHRASE)


async def test_the_restored_manager_leads_alone_with_all_of_the_state(tmp_path: Path) -> None:
    contents, clock = old_cluster(), SystemClock()
    place = Place("192.0.2.9:2377", "192.0.2.9")
    made = await asyncio.to_thread(
        restore, contents, place, tmp_path / "raft", SystemDisk(), clock, random.Random(3)
    )
    peer = check_identity(made.identity, clock.now())
    assert (peer.node_id, peer.role, peer.cluster_id) == (made.node_id, Role.MANAGER, contents.cluster.id)
    assert made.node_id not in {node.id for node in contents.view.all(Node)}

    store = Store(clock, random.Random(4))
    raft = Raft(
        node_id=made.node_id,
        cluster_id=contents.cluster.id,
        address=place.advertise,
        directory=tmp_path / "raft",
        state_machine=store,
        tls=TlsMaterial(*made.identity),
    )
    store.bind(raft)
    await raft.start()
    try:
        index = 0
        while not index:
            if raft.is_leader:
                index = await raft.read_barrier()
            else:
                await clock.sleep(SECOND // 100)
        assert dict(raft.members) == {made.node_id: place.advertise}
        assert raft.status().generation == 1  # whoever was a member before is told so
        view = store.view()
        assert {secret.id for secret in view.all(Secret)} == {"s0", "s1", "s2"}
        nodes = {node.id: node for node in view.all(Node)}
        assert nodes.keys() == {"founder", "m2", "w", made.node_id}
        assert {id for id, node in nodes.items() if node.role is Role.MANAGER} == {made.node_id}
        assert nodes["m2"].spec.role is Role.WORKER
        assert nodes["m2"].manager_status is None
        cluster = view.cluster()
        assert cluster is not None
        assert cluster.generation == 1
        assert cluster.root_ca == contents.cluster.root_ca
        assert view.index > contents.view.index  # versions of objects go on, never back

        def touch(tx: Transaction) -> None:
            found = tx.get(Cluster, cluster.id)
            assert found is not None
            tx.update(found)

        await store.update(touch)  # and it accepts writes
    finally:
        await raft.stop()
    for path in (tmp_path / "raft").iterdir():
        assert b"hidden" not in path.read_bytes()
