"""The node's certificate files, which the manager shares with the node daemon."""

import os
from collections.abc import Sequence
from pathlib import Path

from cluster.identity import Identity
from manager.keys.locks import UNLOCKED, Lock, lock_tls_key, unlock_tls_key

_FILES = {"root_ca": "ca.crt", "key": "node.key", "certificate": "node.crt"}


def load_identity(directory: Path, locks: Sequence[Lock] = ()) -> Identity:
    """Read certificate, key and root CA.

    Raises OSError when there are none, WrongKey when the key is locked with none of these locks.
    """
    files = Identity(**{field: (directory / name).read_bytes() for field, name in _FILES.items()})
    return files._replace(key=unlock_tls_key(files.key, locks))


def save_identity(directory: Path, identity: Identity, locks: Sequence[Lock] = (UNLOCKED,)) -> None:
    """Write them, readable by root only, each synced and put in place at once; the key under these locks."""
    identity = identity._replace(key=lock_tls_key(identity.key, locks))
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for field, name in _FILES.items():
        path = directory / name
        temporary = path.with_name(name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(getattr(identity, field))
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
