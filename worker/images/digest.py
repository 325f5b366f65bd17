"""Content digests: `algorithm:hex` (OCI image spec, descriptor.md)."""

import hashlib
import re
from typing import TYPE_CHECKING

from worker.images.errors import InvalidImage

if TYPE_CHECKING:
    from hashlib import _Hash

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)\Z")


def is_digest(text: str) -> bool:
    """True for a well-formed digest of an algorithm Shoal can verify."""
    match = _DIGEST.match(text)
    return match is not None and len(match[2]) == _HEX_LENGTH[match[1]]


def check_digest(text: str) -> str:
    """The digest itself; raises InvalidImage when it is malformed or of an unknown algorithm."""
    if not is_digest(text):
        raise InvalidImage(f"{text[:80]!r} is not a digest; expected sha256:<64 hexadecimal digits>")
    return text


def digest_of(content: bytes) -> str:
    """The SHA-256 digest of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def hasher(digest: str) -> "_Hash":
    """A fresh hash object of the algorithm that a (checked) digest names."""
    return hashlib.new(check_digest(digest).partition(":")[0])


def matches(digest: str, content: bytes) -> bool:
    """True when the content has that digest."""
    state = hasher(digest)
    state.update(content)
    return state.hexdigest() == hex_of(digest)


def hex_of(digest: str) -> str:
    """The part after the colon."""
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """The first 12 digits, as docker shows identifiers."""
    return hex_of(digest)[:12]
