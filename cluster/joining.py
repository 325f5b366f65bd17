"""What a node and a manager say to each other to join a cluster or renew a certificate (JSON, port 2377)."""

from ipaddress import ip_address

import msgspec

from cluster.messages import ManagerAddress
from cluster.states import Availability, Role


def is_ip(text: str) -> bool:
    """Whether a node's word for its own address is an IP address: other nodes put it into their kernels.

    One with a zone ("fe80::1%eth0") is none: it means nothing elsewhere, and a zone may be any text.
    """
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


class RootCertificate(msgspec.Struct, frozen=True):
    """GET /ca, to anyone: the root CA, which the joiner checks against its token."""

    certificate: str


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /join. `address` is the node's IP as others reach it; empty: the connection's source."""

    token: str
    csr: str
    address: str = ""
    data_path_address: str = ""
    availability: Availability = Availability.ACTIVE
    previous: str = ""
    """The certificate (PEM) of a node that was away until it expired, and comes back as the one it was."""
    proof: str = ""
    """That it holds the key of that certificate: cluster.identity.prove of the request, in base64."""


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The node's new identity, and the cluster's managers; `role` as the token gives it.

    For a manager, with autolock: the unlock key, and the version of the cluster object that says so.
    """

    node_id: str
    cluster_id: str
    role: Role
    certificate: str
    root_ca: str
    managers: tuple[ManagerAddress, ...]
    data_path_port: int
    unlock_key: str = ""
    lock_version: int = 0


class RenewRequest(msgspec.Struct, frozen=True):
    """POST /renew over mutual TLS with the present certificate."""

    csr: str


class RenewAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A new certificate with the role that the node has by now; for a manager, as in JoinAnswer, the lock."""

    role: Role
    certificate: str
    root_ca: str
    managers: tuple[ManagerAddress, ...]
    unlock_key: str = ""
    lock_version: int = 0
