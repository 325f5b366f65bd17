"""A backup file: what goes in comes out, and anything else is noticed."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InvalidArgument, ShoalError, Unauthorized
from cluster.objects import Node, Secret, Service
from cluster.seams import SystemClock
from cluster.spec import ClusterSpec, SecretSpec, ServiceSpec
from manager.backup.file import (
    DamagedBackup,
    check_passphrase,
    read_backup,
    read_head,
    write_backup,
)
from manager.ca.authority import found_cluster, founding_objects
from manager.store import snapshot
from manager.store.transaction import Transaction
from manager.store.view import View

PASSPHRASE = "correct horse battery"


def state(secrets: int = 3) -> View:
    """A cluster's, with a CA."""
    cluster = found_cluster(ClusterSpec(), clock=SystemClock(), rng=random.Random(1))
    tx = Transaction(View.empty())
    founding_objects(tx, cluster, "founder", "192.0.2.1:2377", data_path_address="")
    for number in range(secrets):
        tx.create(Secret(id=f"s{number}", spec=SecretSpec(name=f"s{number}", data="hidden" * 100)))
    tx.create(Service(id="web", spec=ServiceSpec(name="web")))
    return tx.commit(7, 1)[0]


def backup(view: View, secret: str = PASSPHRASE) -> bytes:
    pieces = write_backup(view, "founder", secret, "passphrase", 123, random.Random(2))
    return b"".join(pieces)


@pytest.fixture(scope="module")
def content() -> bytes:
    return backup(state())


def test_what_goes_in_comes_out_and_nothing_shows(content: bytes) -> None:
    view = state()
    found = read_backup(io.BytesIO(backup(view)).read, PASSPHRASE)
    for kind in (Node, Secret, Service):
        assert list(found.view.all(kind)) == list(view.all(kind))
    assert found.cluster == view.cluster()
    assert found.view.index == found.head.index == 7
    assert found.head.taken_at == 123
    assert found.summary() == {"nodes": 1, "services": 1, "secrets": 3}
    assert b"hidden" not in content
    assert b"PRIVATE KEY" not in content
    assert read_head(io.BytesIO(content).read)[0].cluster_id == found.cluster.id  # without the passphrase


def test_a_state_of_many_pieces_comes_out_too() -> None:
    view = state(secrets=5000)
    assert read_backup(io.BytesIO(backup(view)).read, PASSPHRASE).summary()["secrets"] == 5000


def test_another_passphrase_opens_nothing(content: bytes) -> None:
    with pytest.raises(Unauthorized, match="not the passphrase"):
        read_backup(io.BytesIO(content).read, PASSPHRASE + "!")
    with pytest.raises(InvalidArgument, match="at least 8"):
        check_passphrase("short")


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_flipped_bit_or_a_missing_or_added_end_is_noticed(content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    broken = data.draw(st.sampled_from([bytes(changed), content[:place], content + b"x"]))
    with pytest.raises(ShoalError):
        read_backup(io.BytesIO(broken).read, PASSPHRASE)


def test_a_head_can_not_ask_for_absurd_work(content: bytes) -> None:
    with pytest.raises(DamagedBackup, match="absurd"):
        read_backup(io.BytesIO(content[:13] + absurd(content)).read, PASSPHRASE)


def absurd(content: bytes) -> bytes:
    """The file behind its magic, with a head that asks for 100 TiB."""
    head_length = int.from_bytes(content[13:17], "little")
    head = content[17 : 17 + head_length].replace(b'"n":32768', b'"n":99999999')
    return len(head).to_bytes(4, "little") + head + content[17 + head_length :]


def test_what_is_no_backup_says_so() -> None:
    for content in (b"", b"PK\x03\x04 something else", b"SHOALBACKUP1\n\xff\xff\xff\xff"):
        with pytest.raises(DamagedBackup):
            read_backup(io.BytesIO(content).read, PASSPHRASE)


def test_a_backup_of_a_newer_version_asks_for_an_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SCHEMA", 99)
    newer = backup(state())
    monkeypatch.undo()
    with pytest.raises(InvalidArgument, match="newer Shoal"):
        read_backup(io.BytesIO(newer).read, PASSPHRASE)
