"""Which root signs at present, and what a node's certificate and trust should be.

While one root replaces another, the new one signs, and the old one vouches for it. A node that got its
certificate since then trusts both; when all have, the old one goes.
"""

from typing import NamedTuple

from cluster.objects import Cluster, NodeTLSInfo, RootCA
from cluster.root_ca import issuer
from cluster.spec import ExternalCA


class Signing(NamedTuple):
    """The root that signs, its key (b"": a CA outside the cluster has it), and what else vouches for it."""

    certificate: bytes
    key: bytes
    intermediate: bytes = b""


def signing(root: RootCA) -> Signing:
    """What new certificates are signed with."""
    if root.rotation is None:
        return Signing(root.certificate, root.key)
    return Signing(root.rotation.certificate, root.rotation.key, root.rotation.cross_signed)


def trusted(root: RootCA) -> bytes:
    """The roots that a node should trust, the one in force first."""
    return b"".join(signing_roots(root))


def signing_roots(root: RootCA) -> tuple[bytes, ...]:
    """All whose certificates are in use."""
    return (root.certificate,) if root.rotation is None else (root.certificate, root.rotation.certificate)


def externals(cluster: Cluster, certificate: bytes) -> list[ExternalCA]:
    """The CAs outside the cluster that sign for this root."""
    config = cluster.spec.ca_config
    return [
        ca for ca in (config.external_cas if config else None) or () if ca.ca_cert == certificate.decode()
    ]


def wanted_tls(cluster: Cluster) -> NodeTLSInfo:
    """What each node should hold and trust at present."""
    subject, public_key = issuer(signing(cluster.root_ca).certificate)
    return NodeTLSInfo(
        trust_root=trusted(cluster.root_ca).decode(), issuer_subject=subject, issuer_public_key=public_key
    )
