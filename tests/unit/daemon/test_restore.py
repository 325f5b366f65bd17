"""What arrives for a restore, what is staged for it, and what is left of one that broke off."""

import io
import os
import random
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from cluster.errors import InvalidArgument, Unauthorized
from cluster.identity import check_identity
from cluster.seams import SystemClock
from manager.keys.locks import lock_of, new_unlock_key
from manager.keys.sealing import WrongKey
from manager.store.transaction import Transaction
from shoal.daemon.membership import MembershipStore
from shoal.daemon.restore import RestoreRequest, receive, stage, verified
from shoal.daemon.swarm_requests import Addresses
from tests.unit.backup.test_file import PASSPHRASE, backup, state

WHERE = Addresses("0.0.0.0:2377", "192.0.2.9:2377", "192.0.2.9", True)


async def received(content: bytes, file: Path) -> RestoreRequest | str:
    """What a handler gets of this body."""
    found: list[RestoreRequest | str] = []

    async def handler(request: web.Request) -> web.Response:
        try:
            found.append(await receive(request, file))
        except InvalidArgument as error:
            found.append(str(error))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handler)
    async with TestClient(TestServer(app)) as client:
        await client.post("/", data=io.BytesIO(content) if content else None)
    return found[0]


async def test_the_options_come_first_and_the_rest_goes_to_the_disk(tmp_path: Path) -> None:
    file, content = tmp_path / "in" / "backup", random.Random(1).randbytes(3_000_000)
    found = await received(b'{"AdvertiseAddr": "eth0", "Force": true}\n' + content, file)
    assert found == RestoreRequest(advertise_addr="eth0", force=True)
    assert file.read_bytes() == content
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content", [b"", b"no options", b"[]\n", b"{\n", b'{"Force": 7}\n', b"x" * 200_000 + b"\n"]
)
async def test_without_options_nothing_is_written(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "in" / "backup"
    found = await received(content, file)
    assert isinstance(found, str)
    assert "options" in found
    assert not file.exists()


def test_a_staged_membership_is_a_manager_s_own(tmp_path: Path) -> None:
    file = tmp_path / "backup"
    file.write_bytes(backup(state()))
    with pytest.raises(Unauthorized):
        verified(file, PASSPHRASE + "!")
    contents, clock = verified(file, PASSPHRASE), SystemClock()
    membership = stage(contents, WHERE, tmp_path / "swarm.restored", clock, random.Random(2))
    store = MembershipStore(tmp_path / "swarm.restored")
    assert store.load() == membership
    assert store.has_raft()
    assert check_identity(store.identity(), clock.now()).node_id == membership.node_id
    assert [manager.address for manager in membership.managers] == ["192.0.2.9:2377"]
    assert membership.cluster_id == contents.cluster.id

    (tmp_path / "restore.x1y2").mkdir()  # an upload that broke off; both hold secrets
    assert MembershipStore(tmp_path / "swarm").load() is None
    assert {path.name for path in tmp_path.iterdir()} == {"backup"}


def test_with_autolock_what_is_staged_is_locked_from_the_first(tmp_path: Path) -> None:
    tx = Transaction(state())
    cluster = tx.cluster()
    assert cluster is not None
    tx.update(replace(cluster, unlock_key=new_unlock_key(random.Random(5))))
    file = tmp_path / "backup"
    file.write_bytes(backup(tx.commit(8, 1)[0]))
    contents, clock = verified(file, PASSPHRASE), SystemClock()
    membership = stage(contents, WHERE, tmp_path / "swarm.restored", clock, random.Random(2))
    store = MembershipStore(tmp_path / "swarm.restored")
    store.look_at_lock()
    assert store.locked
    with pytest.raises(WrongKey):
        store.identity()
    store.unlock(lock_of(contents.cluster).key or b"")
    assert check_identity(store.identity(), clock.now()).node_id == membership.node_id


def test_what_was_restored_takes_its_place_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "backup"
    file.write_bytes(backup(state()))
    contents, store = verified(file, PASSPHRASE), MembershipStore(tmp_path / "swarm")
    membership = stage(contents, WHERE, store.restored, SystemClock(), random.Random(2))
    store.save(replace(membership, node_id="former"))
    synced: list[Path] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        if (store.root / "raft").exists():
            synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    store.take_restored()
    assert synced == [tmp_path]
    assert store.load() == membership
