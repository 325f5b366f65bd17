"""Unlock keys as Docker writes them, TLS keys locked with them, and what a cluster wants."""

import random
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from msgspec.structs import replace

from cluster.errors import InvalidArgument
from cluster.identity import create_csr
from cluster.objects import Cluster
from cluster.spec import ClusterSpec, EncryptionConfig
from manager.keys.locks import (
    UNLOCKED,
    Lock,
    format_unlock_key,
    lock_of,
    lock_tls_key,
    new_unlock_key,
    parse_unlock_key,
    unlock_tls_key,
    with_autolock,
)
from manager.keys.sealing import WrongKey, new_key

RANDOM = random.Random(5)
FIRST, SECOND = Lock(new_key(RANDOM), 1), Lock(new_key(RANDOM), 2)
LOCKING = ClusterSpec(encryption_config=EncryptionConfig(auto_lock_managers=True))


def same_key(one: bytes, other: bytes) -> bool:
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    first, second = (
        serialization.load_pem_private_key(key, None).public_key().public_bytes(*form) for key in (one, other)
    )
    return first == second


def test_the_form_is_docker_s() -> None:
    assert format_unlock_key(bytes(32)) == "SWMKEY-1-" + "A" * 43
    text = new_unlock_key(RANDOM)
    assert len(text) == 9 + 43
    assert format_unlock_key(parse_unlock_key(f" {text}\n")) == text


@pytest.mark.parametrize(
    "text", ["", "x", "SWMKEY-1-", "SWMKEY-1-AAAA", "SWMKEY-2-" + "A" * 43, "A" * 43, "SWMKEY-1-" + "*" * 43]
)
def test_what_is_no_key_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid key string"):
        parse_unlock_key(text)


def test_a_tls_key_is_locked_for_every_lock_that_may_be_in_force() -> None:
    key, _ = create_csr()
    both = lock_tls_key(key, (FIRST, SECOND))
    assert both.count(b"BEGIN ENCRYPTED PRIVATE KEY") == 2
    for lock in (FIRST, SECOND):
        assert same_key(unlock_tls_key(both, (UNLOCKED, lock)), key)
    only = lock_tls_key(key, (SECOND,))
    with pytest.raises(WrongKey):
        unlock_tls_key(only, (UNLOCKED, FIRST))
    assert lock_tls_key(key, (FIRST, UNLOCKED)) == key
    assert unlock_tls_key(key, ()) == key


def test_openssl_opens_a_locked_tls_key(tmp_path: Path) -> None:
    """With the unlock key as its password: an operator needs no Shoal for that."""
    key, _ = create_csr()
    (tmp_path / "node.key").write_bytes(lock_tls_key(key, (FIRST,)))
    (tmp_path / "password").write_text(format_unlock_key(FIRST.key or b""))
    done = subprocess.run(
        ["openssl", "pkey", "-in", "node.key", "-passin", "file:password"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert same_key(done.stdout, key)


def test_the_cluster_s_key_follows_its_settings() -> None:
    cluster = Cluster(id="c", version=7)
    assert with_autolock(cluster, RANDOM, rotate=True).unlock_key == ""
    locked = with_autolock(replace(cluster, spec=LOCKING), RANDOM)
    assert lock_of(locked) == Lock(parse_unlock_key(locked.unlock_key), 7)
    assert with_autolock(locked, RANDOM) == locked
    assert with_autolock(locked, RANDOM, rotate=True).unlock_key not in ("", locked.unlock_key)
    assert lock_of(with_autolock(replace(locked, spec=ClusterSpec()), RANDOM)) == Lock(None, 7)
