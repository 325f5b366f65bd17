"""Identifiers: 25 characters of base 36, as SwarmKit's, sortable by nothing."""

from cluster.seams import Random

ID_LENGTH = 25
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id(rng: Random) -> str:
    """A new random identifier (128 bits in base 36, padded to 25 characters)."""
    value = rng.getrandbits(128)
    digits: list[str] = []
    while value:
        value, digit = divmod(value, 36)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits)).rjust(ID_LENGTH, "0")


def new_container_id(rng: Random) -> str:
    """A new container identifier: 64 hexadecimal digits."""
    return f"{rng.getrandbits(256):064x}"
