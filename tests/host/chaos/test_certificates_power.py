"""A power loss around the renewal of a node's certificate leaves the old ones or the new ones."""

from pathlib import Path

import pytest

from tests.chaos import power
from tests.host.chaos.disk import Disk

pytestmark = pytest.mark.host

HELPERS = """
import os, shutil, sys
from pathlib import Path
from cluster.identity import Identity
from shoal.daemon.membership import MembershipStore

store = MembershipStore(Path(sys.argv[1]))

def save(text):
    store.save_identity(Identity(text + b" certificate", text + b" key", text + b" root"))

def text():
    identity = store.identity()
    first = identity.certificate.split()[0]
    assert (identity.key, identity.root_ca) == (first + b" key", first + b" root")
    return first
"""


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    root = tmp_path / "swarm"
    root.mkdir()
    return Disk(root, power.build(tmp_path), HELPERS)


def test_after_the_renewal(disk: Disk) -> None:
    disk.run('save(b"old"); save(b"new")')
    power.lose_power(disk.root)
    disk.run('assert text() == b"new"')


def test_before_the_new_ones_count(disk: Disk) -> None:
    disk.run("""
save(b"old")
shutil.rmtree = Path.replace = lambda *arguments: os._exit(0)
save(b"new")
""")
    power.lose_power(disk.root)
    disk.run('assert text() in (b"old", b"new")')
