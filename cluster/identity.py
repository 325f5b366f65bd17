"""Who a node is: root CA, node certificates, join tokens. Keys and certificates are PEM bytes, times in ns.

A node's certificate says CN = node id, OU = role (`swarm-manager`, `swarm-worker`), O = cluster id, as
SwarmKit's do. A join token binds the joiner to the root CA (its digest) and proves the right to a role (its
secret): `SWMTKN-1-<digest, 50 characters of base 36>-<secret, 25 characters>`.
"""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.errors import InvalidArgument, Unauthorized
from cluster.ids import ID_LENGTH, new_id
from cluster.root_ca import (
    authority_key_identifier,
    certificate_usage,
    is_authority,
    load,
    load_key,
    signed_by,
    vouched_for,
)
from cluster.seams import SECOND, Random
from cluster.states import Role

ROOT_CA_NAME = "swarm-ca"
ROOT_CA_LIFETIME = 20 * 365 * 24 * 3600 * SECOND
CLOCK_SKEW = 2 * 3600 * SECOND
"""Certificates are dated back by so much, so that a node whose clock is slow can use them: an hour, as when
summer time was set by hand, and what it is off besides."""
TOKEN_PREFIX = "SWMTKN-1"  # noqa: S105 - the format's name, not a secret
_REJOIN = b"shoal: a node comes back\0"
_DIGEST_LENGTH = 50
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


class Peer(NamedTuple):
    """What a certificate says of its holder."""

    node_id: str
    role: Role
    cluster_id: str
    not_before: int
    not_after: int


class Identity(NamedTuple):
    """A node's own key, certificate and root CA (PEM), as its files hold them."""

    certificate: bytes
    key: bytes
    root_ca: bytes

    @property
    def peer(self) -> Peer:
        """What the certificate says."""
        return peer_of(x509.load_pem_x509_certificate(self.certificate))


class JoinToken(NamedTuple):
    """A parsed join token."""

    digest: str
    secret: str

    def __str__(self) -> str:
        return f"{TOKEN_PREFIX}-{self.digest}-{self.secret}"


# --- root CA --------------------------------------------------------------------------------------------


def create_root_ca(now: int) -> tuple[bytes, bytes]:
    """A new self-signed root (EC P-256): certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ROOT_CA_NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_datetime(now - CLOCK_SKEW))
        .not_valid_after(_datetime(now + ROOT_CA_LIFETIME))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(certificate_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def ca_digest(root_ca: bytes) -> str:
    """The root certificate's SHA-256 as 50 characters of base 36, as join tokens carry it."""
    certificate = load(root_ca)
    value = int.from_bytes(
        hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest(), "big"
    )
    digits = []
    while value:
        value, digit = divmod(value, 36)
        digits.append(_BASE36[digit])
    return "".join(reversed(digits)).rjust(_DIGEST_LENGTH, "0")


# --- join tokens ----------------------------------------------------------------------------------------


def new_join_token(root_ca: bytes, rng: Random) -> str:
    """A new join token for this root CA."""
    return str(JoinToken(ca_digest(root_ca), new_id(rng)))


def parse_join_token(token: str) -> JoinToken:
    """Read a join token; InvalidArgument when it isn't one."""
    parts = token.strip().split("-")
    if (
        len(parts) != 4
        or "-".join(parts[:2]) != TOKEN_PREFIX
        or len(parts[2]) != _DIGEST_LENGTH
        or len(parts[3]) != ID_LENGTH
        or not all(character in _BASE36 for part in parts[2:] for character in part)
    ):
        raise InvalidArgument(
            "invalid join token: expected SWMTKN-1-<digest>-<secret>, as `swarm join-token` prints"
        )
    return JoinToken(parts[2], parts[3])


def check_root_ca(token: JoinToken, root_ca: bytes) -> bytes:
    """The root CA that the token names. Raises Unauthorized when it names another: the manager belongs to
    another cluster, or lies.

    Trust what this returns, not `root_ca`: OpenSSL would trust whatever else stands in that text.
    """
    if not hmac.compare_digest(ca_digest(root_ca), token.digest):
        raise Unauthorized(
            f"remote CA does not match fingerprint. Expected: {token.digest}. "
            "The token is of another cluster, or the address is not one of its managers"
        )
    return load(root_ca).public_bytes(serialization.Encoding.PEM)


def token_role(token: str, worker: str, manager: str) -> Role:
    """The role that a join token gives; Unauthorized when it is neither of the cluster's tokens."""
    given = token.strip().encode()
    if manager and hmac.compare_digest(given, manager.encode()):
        return Role.MANAGER
    if worker and hmac.compare_digest(given, worker.encode()):
        return Role.WORKER
    raise Unauthorized(
        "a valid join token is necessary to join this cluster: this one is wrong or was rotated. "
        "`swarm join-token` on a manager prints the current one"
    )


# --- node certificates ----------------------------------------------------------------------------------


def create_csr() -> tuple[bytes, bytes]:
    """A new node key (EC P-256) and its certificate request. The CA decides the subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-node")]))
        .sign(key, hashes.SHA256())
    )
    return _key_pem(key), csr.public_bytes(serialization.Encoding.PEM)


def checked_request(csr: bytes) -> ec.EllipticCurvePublicKey:
    """The key that a node's request is for. InvalidArgument when the request is unsound."""
    try:
        request = x509.load_pem_x509_csr(csr)
        sound = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InvalidArgument(f"the certificate request can't be read: {error}") from error
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidArgument("the certificate request must be for an elliptic curve key and signed with it")
    return key


def node_names(node_id: str, role: Role) -> list[str]:
    """The DNS names in a node's certificate: TLS itself can tell a manager by them."""
    return [role.organizational_unit, node_id]


def issue_certificate(
    ca: tuple[bytes, bytes],
    csr: bytes,
    *,
    node_id: str,
    role: Role,
    cluster_id: str,
    now: int,
    lifetime: int,
) -> bytes:
    """Sign a node's request with the CA (certificate, key). InvalidArgument when the request is unsound."""
    root, ca_key, key = load(ca[0]), load_key(ca[1]), checked_request(csr)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.organizational_unit),
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
        ]
    )
    names = [x509.DNSName(name) for name in node_names(node_id, role)]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(root.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_datetime(now - CLOCK_SKEW))
        .not_valid_after(min(_datetime(now + lifetime), root.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(certificate_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority_key_identifier(root), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def check_issued(
    certificate: bytes,
    root: bytes,
    csr: bytes,
    *,
    node_id: str,
    role: Role,
    cluster_id: str,
    now: int,
) -> bytes:
    """What a CA outside the cluster made of a node's request: the certificate. Raises InvalidArgument when it
    is not what was asked for."""
    made = load(certificate)
    if not signed_by(made, load(root)):
        raise InvalidArgument("it is not signed by the cluster's root CA itself")
    if is_authority(made):
        raise InvalidArgument("it would let the node sign others' certificates (basic constraints CA:TRUE)")
    if made.public_key() != checked_request(csr):
        raise InvalidArgument("it is for another key than the node's")
    try:
        peer = peer_of(made)
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (Unauthorized, x509.ExtensionNotFound, ValueError) as error:
        raise InvalidArgument(
            f"it lacks the subject or the DNS names that were asked for ({error})"
        ) from error
    if (peer.node_id, peer.role, peer.cluster_id) != (node_id, role, cluster_id):
        raise InvalidArgument(
            f"its subject is {made.subject.rfc4514_string()!r}, and CN={node_id}, "
            f"OU={role.organizational_unit}, O={cluster_id} was asked for"
        )
    if missing := set(node_names(node_id, role)) - set(names.get_values_for_type(x509.DNSName)):
        raise InvalidArgument(f"it lacks the DNS names {', '.join(sorted(missing))} that were asked for")
    if not peer.not_before <= now < peer.not_after:
        raise InvalidArgument("it is not valid now: compare the clocks of the managers and the CA")
    return made.public_bytes(serialization.Encoding.PEM)


def peer_of_der(certificate: bytes) -> Peer:
    """What a peer's certificate (DER, already verified by TLS) says; Unauthorized when it names no role."""
    return peer_of(x509.load_der_x509_certificate(certificate))


def peer_of(certificate: x509.Certificate) -> Peer:
    """What a node certificate says; Unauthorized when it is none."""
    subject = certificate.subject
    units = {str(name.value) for name in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)}
    role = next((role for role in Role if role.organizational_unit in units), None)
    node_id, cluster_id = (
        next((str(name.value) for name in subject.get_attributes_for_oid(oid)), "")
        for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    )
    if role is None or not node_id or not cluster_id:
        raise Unauthorized("the certificate is not a node's: it lacks the node id, role or cluster")
    return Peer(
        node_id,
        role,
        cluster_id,
        _nanoseconds(certificate.not_valid_before_utc),
        _nanoseconds(certificate.not_valid_after_utc),
    )


def check_identity(identity: Identity, now: int, *, expired_too: bool = False) -> Peer:
    """Refuse a certificate that the root CA did not vouch for, that is expired, or whose key is another.

    While one root replaces another the certificate may come with the new root's key, vouched for by the old
    one. `expired_too`: for a holder that goes on to get another.
    """
    certificate = load(identity.certificate)
    if not vouched_for(identity.certificate, identity.root_ca):
        raise Unauthorized("the node's certificate was not issued by the cluster's root CA")
    key = serialization.load_pem_private_key(identity.key, password=None)
    public = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*public) != certificate.public_key().public_bytes(*public):
        raise Unauthorized("the node's key does not belong to its certificate")
    peer = peer_of(certificate)
    if now >= peer.not_after and not expired_too:
        raise Unauthorized(expiry(peer))
    return peer


def expiry(peer: Peer) -> str:
    """That the certificate is of no use any more, and what to do."""
    return (
        f"the node's certificate expired at {_datetime(peer.not_after):%Y-%m-%d %H:%M:%S} UTC: run "
        f"`docker swarm join-token {peer.role.value}` on a manager, and on this node the `docker swarm join` "
        "that it prints. The node keeps its id and its tasks"
    )


def renewal_time(peer: Peer, rng: Random) -> int:
    """When to renew: at a random point between half and four fifths of the lifetime, so nodes don't crowd.

    The lifetime is from the issue on, not from where the certificate was dated back to.
    """
    span = peer.not_after - peer.not_before
    back = CLOCK_SKEW if span > CLOCK_SKEW else span // 2  # not every certificate was dated back so far
    lifetime = span - back
    return peer.not_before + back + int(lifetime * (0.5 + 0.3 * rng.random()))


def prove(key: bytes, csr: bytes) -> bytes:
    """That the holder of a node's key wants this request signed."""
    holder = serialization.load_pem_private_key(key, password=None)
    if not isinstance(holder, ec.EllipticCurvePrivateKey):
        raise InvalidArgument("the node's key must be an elliptic curve key")
    return holder.sign(_REJOIN + csr, ec.ECDSA(hashes.SHA256()))


def check_proof(certificate: bytes, roots: bytes, csr: bytes, proof: bytes) -> Peer:
    """The node that a certificate was made for, expired or not, if its holder asks; else Unauthorized."""
    held = load(certificate)
    try:
        key = held.public_key() if vouched_for(certificate, roots) else None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(proof, _REJOIN + csr, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Unauthorized(
            "the node's former certificate is not this cluster's, or is another node's: run `docker swarm "
            "leave --force` on it and join again, as a new node"
        ) from error
    return peer_of(held)


# --- helpers --------------------------------------------------------------------------------------------


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _datetime(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=nanoseconds // SECOND)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND
