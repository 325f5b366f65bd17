"""POST /shoal/cluster/restore: a backup becomes a cluster, with this node as its only manager.

The body is a line of JSON with the options, and then the backup itself. The whole backup is checked, and the
new membership written beside the present one, before anything is replaced.
"""

import asyncio
import logging
import shutil
from pathlib import Path

import msgspec
from aiohttp import web

from cluster.errors import InvalidArgument
from cluster.messages import ManagerAddress
from cluster.naming import engine_name
from cluster.seams import Clock, Random
from cluster.states import Role
from manager.backup.file import Contents, read_backup
from manager.backup.restore import Place, restore
from manager.keys.locks import lock_of
from manager.raft.disk import SystemDisk
from shoal.daemon.membership import Membership, MembershipStore
from shoal.daemon.swarm_requests import Addresses

log = logging.getLogger("shoal.daemon.restore")

_MAX_OPTIONS = 1 << 16


class RestoreRequest(msgspec.Struct, frozen=True, kw_only=True, rename=engine_name):
    """The options. The addresses are those of POST /swarm/init."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    passphrase: str = ""
    """Or the unlock key."""
    force: bool = False
    """Leave the cluster that the node is in."""


async def receive(request: web.Request, file: Path) -> RestoreRequest:
    """Store the backup in the file, readable by root only; its options. Raises InvalidArgument, OSError."""
    if not request.body_exists:
        raise InvalidArgument("the request must begin with a line of options, and the backup after it")
    try:
        line = await request.content.readuntil(b"\n")
        options = msgspec.json.decode(line[:_MAX_OPTIONS], type=RestoreRequest)
    except (msgspec.MsgspecError, ValueError, asyncio.IncompleteReadError) as error:
        raise InvalidArgument(f"the request must begin with a line of options: {error}") from error
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.touch(mode=0o600)
    with file.open("wb") as target:
        async for piece in request.content.iter_chunked(1 << 20):
            await asyncio.to_thread(target.write, piece)
    return options


def verified(file: Path, secret: str) -> Contents:
    """The backup, checked as a whole. Raises Unauthorized, DamagedBackup."""
    with file.open("rb") as source:
        return read_backup(source.read, secret)


def stage(contents: Contents, where: Addresses, root: Path, clock: Clock, random: Random) -> Membership:
    """Write everything that the restored manager needs into `root`. Raises OSError."""
    shutil.rmtree(root, ignore_errors=True)
    store = MembershipStore(root)
    root.mkdir(mode=0o700)
    place = Place(where.advertise, where.data_path)
    restored = restore(contents, place, store.raft, SystemDisk(), clock, random)
    store.save_identity(restored.identity, (lock_of(contents.cluster),))
    membership = Membership(
        node_id=restored.node_id,
        cluster_id=contents.cluster.id,
        role=Role.MANAGER,
        listen_address=where.listen,
        advertise_address=where.advertise,
        data_path_address=where.data_path,
        advertise_local=where.local,
        data_path_port=restored.data_path_port,
        managers=(ManagerAddress(restored.node_id, where.advertise),),
    )
    store.save(membership)
    return membership
