"""POST /shoal/cluster/backup: the cluster's state, encrypted, from a confirmed index."""

import asyncio
import logging

import msgspec
from aiohttp import web

from cluster.errors import Conflict
from manager.api.access import ACCESS, cluster_of
from manager.api.request import body
from manager.backup.file import SecretKind, check_passphrase, write_backup

log = logging.getLogger("shoal.api")


class BackupRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """With what to encrypt: a passphrase, or the cluster's own unlock key."""

    passphrase: str = ""
    unlock_key: bool = False


async def take_backup(request: web.Request) -> web.StreamResponse:
    """Stream it. The state is an immutable view, and the work is done in a thread: nobody waits for it."""
    access = request.app[ACCESS]
    wanted = await body(request, BackupRequest)
    view = await access.confirmed()
    secret, kind = wanted.passphrase, _kind(wanted)
    if wanted.unlock_key:
        secret = cluster_of(view).unlock_key
        if not secret:
            raise Conflict(
                "the cluster is not locked, so it has no unlock key: give a passphrase, or turn autolock on "
                "(docker swarm update --autolock=true)"
            )
    check_passphrase(secret)
    pieces = write_backup(view, access.node_id, secret, kind, access.clock.now(), access.rng)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    try:
        while piece := await asyncio.to_thread(next, pieces, b""):
            await response.write(piece)
    except ConnectionError:
        raise
    except Exception:
        log.exception("a backup broke off")
        if request.transport is not None:
            request.transport.abort()  # the client must not take the part for the whole
        return response
    await response.write_eof()
    log.info("backup taken", extra={"index": view.index, "encrypted_with": kind})
    return response


def _kind(wanted: BackupRequest) -> SecretKind:
    return "unlock key" if wanted.unlock_key else "passphrase"
