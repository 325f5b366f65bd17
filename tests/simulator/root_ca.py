"""Roots of which nobody has the keys: a simulation signs nothing, and is the same each time.

A node's certificate is text that says which root it is of, and which one vouches for that root besides; two
nodes talk only if each trusts the root of the other's, as TLS would see to.
"""

from typing import NamedTuple

from cluster.root_ca import Issuer, issuer

ROOTS = tuple(
    certificate.encode()
    for certificate in (
        """\
-----BEGIN CERTIFICATE-----
MIIBbTCCAROgAwIBAgIUHxlhe82rkNzDWzRP/6eLbu999PMwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIc3dhcm0tY2EwHhcNMjUxMjMxMjMwMDAwWhcNNDUxMjI3MDAw
MDAwWjATMREwDwYDVQQDDAhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABDt9j/ZT6vfcyBBlrreoakHX7XLPxA/Ne+rXFTmwu38J8gGKM4qD5DqEwtxY
uXe3TKGjOqb4XRvirEkZOzRJMdmjRTBDMBIGA1UdEwEB/wQIMAYBAf8CAQEwDgYD
VR0PAQH/BAQDAgEGMB0GA1UdDgQWBBRF4gHKmrS3k6a78MAcr9auuM0BHDAKBggq
hkjOPQQDAgNIADBFAiB++AtNPCDTrqgsVaDbFcyS2QKR3wemSwEqQpy9I55L/wIh
ALI1eEo446+dtWQdzFp+cW/YkDdFT2kmAIdLCvofdYVf
-----END CERTIFICATE-----
""",
        """\
-----BEGIN CERTIFICATE-----
MIIBbDCCAROgAwIBAgIUTXHLwnGNI9PvrVr/jdDAsdNRo1IwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIc3dhcm0tY2EwHhcNMjUxMjMxMjMwMDAwWhcNNDUxMjI3MDAw
MDAwWjATMREwDwYDVQQDDAhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABBhjnMQB8QX5m/Nt4VrBT8yFaZPOt1t+6fwzxopagrA/JlT42AY3jnehHjn/
4DudBvGHKd+7uUvXldW7EuCso2WjRTBDMBIGA1UdEwEB/wQIMAYBAf8CAQEwDgYD
VR0PAQH/BAQDAgEGMB0GA1UdDgQWBBTgFQgc0+FztZIvIIuIrE5nCwypmTAKBggq
hkjOPQQDAgNHADBEAiAP02wbeAe+ZmKK59ErnvILBfY7QO+kYDCK1+v8JUfqwgIg
V7qky365FinCm9zudkmQ2cxd+/cdAL14bTmGp8FQ5Gk=
-----END CERTIFICATE-----
""",
        """\
-----BEGIN CERTIFICATE-----
MIIBbjCCAROgAwIBAgIUHxPRJjwBxSCQSZh7nNShQmtGP8gwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIc3dhcm0tY2EwHhcNMjUxMjMxMjMwMDAwWhcNNDUxMjI3MDAw
MDAwWjATMREwDwYDVQQDDAhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABMjCZqoy+H1rBL87EjI9KClS9p+iw3f5Up62oIrxpfTthEplQmI7dmfoyGmX
S0evKJJ9sSzRU9+2sZbn0TFedc+jRTBDMBIGA1UdEwEB/wQIMAYBAf8CAQEwDgYD
VR0PAQH/BAQDAgEGMB0GA1UdDgQWBBQ/Ai38yUCTONtypvBhdCRsUOb1DzAKBggq
hkjOPQQDAgNJADBGAiEAq0KCC0ykpKCs5B2oYeRNQ7H0xhjBPOlUcMc6D+tR0IsC
IQD/U/WUp6JHsfFn7E4mCzHFqGD5yYQM++mPswZIJqXF2A==
-----END CERTIFICATE-----
""",
    )
)
KEY = b"simulated"


class Held(NamedTuple):
    """What a node holds: the root of its certificate, who vouches for that root, and what it trusts."""

    root: int = 0
    vouched: int | None = None
    trusts: tuple[int, ...] = (0,)

    def accepted_by(self, other: "Held") -> bool:
        """Whether the other takes this one's certificate."""
        return self.root in other.trusts or self.vouched in other.trusts


class Roots:
    """Stands for what cluster.identity and cluster.root_ca do with keys, for one run."""

    def __init__(self) -> None:
        self._made = 0

    def create(self, now: int) -> tuple[bytes, bytes]:
        """Another root each time, in a circle."""
        self._made += 1
        return ROOTS[(self._made - 1) % len(ROOTS)], KEY

    def sign(self, ca: tuple[bytes, bytes], csr: bytes, **who: object) -> bytes:
        """A certificate of that root."""
        return f"root {ROOTS.index(ca[0])}\n".encode()

    def cross_sign(self, new: bytes, old: tuple[bytes, bytes]) -> bytes:
        """The old root vouches for the new one."""
        return f"vouched {ROOTS.index(old[0])}\n".encode()

    def issuer_among(self, certificate: bytes, roots: tuple[bytes, ...]) -> Issuer | None:
        """Which of the roots a node's certificate is of."""
        root = ROOTS[int(certificate)]
        return issuer(root) if root in roots else Issuer(b"", b"")


def held(certificate: str, root_ca: str) -> Held:
    """What a manager's answer gives a node."""
    words = [line.split() for line in certificate.splitlines()]
    said = {kind: int(number) for kind, number in words}
    trusts = tuple(number for number, root in enumerate(ROOTS) if root.decode() in root_ca)
    return Held(said["root"], said.get("vouched"), trusts)
