"""Autolock: unlock keys, and a node's TLS key encrypted with them."""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from msgspec.structs import replace

from cluster.errors import InvalidArgument
from cluster.joining import JoinAnswer, RenewAnswer
from cluster.objects import Cluster
from cluster.seams import Random
from manager.keys.sealing import KEY_SIZE, WrongKey, new_key

PREFIX = "SWMKEY-1-"
_PEM_BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----\n?", re.DOTALL)
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class Lock(NamedTuple):
    """What locks a manager at rest: an unlock key, or None without autolock.

    `version` is that of the cluster object that says so; a manager that reads its log again meets older ones.
    """

    key: bytes | None = None
    version: int = 0


UNLOCKED = Lock()


def new_unlock_key(random: Random) -> str:
    """A new unlock key, as users see it."""
    return format_unlock_key(new_key(random))


def format_unlock_key(key: bytes) -> str:
    """As Docker writes them: `SWMKEY-1-` and base 64 without padding."""
    return PREFIX + b64encode(key).decode().rstrip("=")


def parse_unlock_key(text: str) -> bytes:
    """Read an unlock key; InvalidArgument when it isn't one."""
    encoded = text.strip().removeprefix(PREFIX)
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if not text.strip().startswith(PREFIX) or len(key) != KEY_SIZE:
        raise InvalidArgument(f"invalid key string: an unlock key looks like {PREFIX} and 43 characters")
    return key


def lock_of(cluster: Cluster) -> Lock:
    """How the cluster wants its managers locked."""
    key = parse_unlock_key(cluster.unlock_key) if cluster.unlock_key else None
    return Lock(key, cluster.version)


def lock_in(answer: JoinAnswer | RenewAnswer) -> Lock:
    """How a manager that joins or is promoted is to be locked."""
    return Lock(parse_unlock_key(answer.unlock_key) if answer.unlock_key else None, answer.lock_version)


def with_autolock(cluster: Cluster, random: Random, rotate: bool = False) -> Cluster:
    """The cluster with an unlock key if its settings ask for autolock, and without one if they don't."""
    wanted = cluster.spec.encryption_config is not None and cluster.spec.encryption_config.auto_lock_managers
    key = cluster.unlock_key
    if not wanted:
        key = ""
    elif rotate or not key:
        key = new_unlock_key(random)
    return replace(cluster, unlock_key=key)


# --- a TLS key on disk ------------------------------------------------------------------------------------


def lock_tls_key(key: bytes, locks: Iterable[Lock]) -> bytes:
    """A private key (PEM) as it may lie on disk when any of these locks may be in force.

    Encrypted (PKCS #8) once for each unlock key, which is the password; as it is, if one of them is no lock.
    """
    keys = [lock.key for lock in locks]
    if None in keys:
        return key
    private = serialization.load_pem_private_key(key, password=None)
    return b"".join(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(format_unlock_key(unlock_key).encode()),
        )
        for unlock_key in keys
        if unlock_key is not None
    )


def unlock_tls_key(content: bytes, locks: Sequence[Lock]) -> bytes:
    """The private key (PEM, in clear). Raises WrongKey when none of these locks opens it."""
    if not is_locked(content):
        return content
    for block in _PEM_BLOCK.findall(content):
        for lock in locks:
            if lock.key is None:
                continue
            try:
                private = serialization.load_pem_private_key(block, format_unlock_key(lock.key).encode())
            except ValueError:
                continue
            return private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
    raise WrongKey("the node's TLS key is locked with an unlock key that was not given")


def is_locked(content: bytes) -> bool:
    """Whether a private key (PEM) is encrypted."""
    return content.lstrip().startswith(_ENCRYPTED)
