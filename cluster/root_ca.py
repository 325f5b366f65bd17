"""Root certificates: made, checked, vouched for by one another, and which of them a certificate is from.

All are PEM bytes. A text with several certificates is what a node trusts while one root replaces another: the
first is the one in force, the second its successor.
"""

from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cluster.errors import InvalidArgument
from cluster.seams import SECOND

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_E = TypeVar("_E", bound=x509.ExtensionType)
MIN_RSA_BITS = 2048
MIN_CURVE_BITS = 256
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


class Issuer(NamedTuple):
    """Who signs a certificate, in DER, as the Engine API's TLSInfo names it."""

    subject: bytes
    public_key: bytes


def issuer(root: bytes) -> Issuer:
    """A root as an issuer. Raises InvalidArgument."""
    certificate = load(root)
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Issuer(certificate.subject.public_bytes(), public)


def load(pem: bytes) -> x509.Certificate:
    """The first certificate in a text. Raises InvalidArgument."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except _UNREADABLE as error:
        raise InvalidArgument(f"the certificate can't be read: {error}") from error


def load_all(pem: bytes) -> list[x509.Certificate]:
    """All certificates in a text. Raises InvalidArgument."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE as error:
        raise InvalidArgument(f"the certificate can't be read: {error}") from error


def load_key(pem: bytes) -> PrivateKey:
    """A CA's key. Raises InvalidArgument when it can't be read, or is of a kind that nodes don't accept."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except _UNREADABLE as error:
        raise InvalidArgument(
            f"the CA key can't be read ({error}): give it as PEM, without a passphrase"
        ) from error
    if not isinstance(key, PrivateKey):
        raise InvalidArgument("the CA key must be an elliptic curve or an RSA key")
    return key


def checked_root(text: str, key: str, now: int) -> tuple[bytes, bytes]:
    """A root and its key (or b"") from outside, in the form that they are stored in.

    Raises InvalidArgument for anything that could not be a cluster's root.
    """
    found = load_all(text.encode())
    if len(found) != 1:
        raise InvalidArgument(f"the CA certificate must be exactly one certificate, not {len(found)}")
    root = found[0]
    try:
        _check_authority(root, now)
    except _UNREADABLE as error:  # many things are looked at only when they are asked for
        raise InvalidArgument(f"the CA certificate can't be read: {error}") from error
    if not key:
        return root.public_bytes(serialization.Encoding.PEM), b""
    private = load_key(key.encode())
    if private.public_key() != root.public_key():
        raise InvalidArgument("the CA key does not belong to the CA certificate")
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return root.public_bytes(serialization.Encoding.PEM), pem


def _check_authority(root: x509.Certificate, now: int) -> None:
    public = root.public_key()
    strong = (isinstance(public, rsa.RSAPublicKey) and public.key_size >= MIN_RSA_BITS) or (
        isinstance(public, ec.EllipticCurvePublicKey) and public.curve.key_size >= MIN_CURVE_BITS
    )
    if not strong:
        raise InvalidArgument(
            f"the CA certificate must have an RSA key of at least {MIN_RSA_BITS} bits, or an elliptic curve "
            f"key of at least {MIN_CURVE_BITS}"
        )
    if not root.subject.rdns:
        raise InvalidArgument("the CA certificate must have a subject")
    if not signed_by(root, root):
        raise InvalidArgument("the CA certificate must be a root, signed with its own key")
    algorithm = root.signature_hash_algorithm
    if algorithm is None or isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        raise InvalidArgument("the CA certificate must be signed with SHA-256 or better")
    basic = _extension(root, x509.BasicConstraints)
    if basic is None or not basic.ca:
        raise InvalidArgument("the CA certificate must be one of an authority (basic constraints CA:TRUE)")
    if basic.path_length == 0:
        raise InvalidArgument(
            "the CA certificate allows no authority below it (pathlen:0), which the next rotation needs: "
            "make it with pathlen:1 or without one"
        )
    usage = _extension(root, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise InvalidArgument("the CA certificate may not sign certificates (key usage lacks keyCertSign)")
    begin, end = (
        int(moment.timestamp()) * SECOND for moment in (root.not_valid_before_utc, root.not_valid_after_utc)
    )
    if not begin <= now < end:
        raise InvalidArgument(
            f"the CA certificate is not valid now: it is from {root.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{root.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )


def check_distinct(new: bytes, old: bytes) -> None:
    """Raise InvalidArgument when TLS could take one root for the other."""
    first, second = load(new), load(old)
    identifiers = [_extension(each, x509.SubjectKeyIdentifier) for each in (first, second)]
    if first.subject == second.subject and (None in identifiers or identifiers[0] == identifiers[1]):
        raise InvalidArgument(
            "the CA certificate has the same subject as the present one, and no subject key identifier that "
            "would tell them apart: give it another subject, or an identifier"
        )


def cross_sign(root: bytes, old: tuple[bytes, bytes]) -> bytes:
    """The new root's key, vouched for by the old root (certificate, key).

    Sent along with certificates of the new root, it lets nodes accept them that know the old root only.
    """
    new, (before, key) = load(root), (load(old[0]), load_key(old[1]))
    subject_key = new.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(new.subject)
        .issuer_name(before.subject)
        .public_key(subject_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(new.not_valid_before_utc, before.not_valid_before_utc))
        .not_valid_after(min(new.not_valid_after_utc, before.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(certificate_usage(authority=True), critical=True)
        .add_extension(_subject_key_identifier(new), critical=False)
        .add_extension(authority_key_identifier(before), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def check_cross_signed(certificate: bytes, new: bytes, old: bytes) -> bytes:
    """What an external CA made of a request to vouch for the new root. Raises InvalidArgument."""
    made, root = load(certificate), load(new)
    try:
        made.verify_directly_issued_by(load(old))
    except (InvalidSignature, ValueError, TypeError) as error:
        raise InvalidArgument("the external CA's answer was not signed by the present root CA") from error
    basic = _extension(made, x509.BasicConstraints)
    if made.public_key() != root.public_key() or made.subject != root.subject or not (basic and basic.ca):
        raise InvalidArgument(
            'the external CA did not vouch for the new root: its profile "CA" must sign authorities'
        )
    return made.public_bytes(serialization.Encoding.PEM)


def authority_request(root: bytes, key: bytes) -> bytes:
    """The request by which another CA is asked to vouch for this root."""
    request = x509.CertificateSigningRequestBuilder().subject_name(load(root).subject)
    request = request.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return request.sign(load_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def issuer_among(certificate: bytes, roots: tuple[bytes, ...]) -> Issuer | None:
    """Which of the roots signed a node's certificate (DER); without a key when it was none of them. None when
    the certificate can't be read."""
    try:
        leaf = x509.load_der_x509_certificate(certificate)
        unknown = Issuer(leaf.issuer.public_bytes(), b"")
    except _UNREADABLE:
        return None
    known = (issuer(root) for root in roots if signed_by(leaf, load(root)))
    return next(known, unknown)


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key made the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def vouched_for(chain: bytes, roots: bytes) -> bool:
    """Whether one of the roots signed the chain's first certificate, itself or by way of one in the chain.

    The one between must be an authority's: a node's key signs nothing, whatever names it takes.
    """
    (leaf, *between), trusted = load_all(chain), load_all(roots)
    return any(signed_by(leaf, root) for root in trusted) or any(
        is_authority(middle) and signed_by(leaf, middle) and any(signed_by(middle, root) for root in trusted)
        for middle in between
    )


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate says that its key may sign others."""
    basic = _extension(certificate, x509.BasicConstraints)
    return basic is not None and basic.ca


def split(bundle: str) -> list[str]:
    """The certificates of a text, each as its own text."""
    end = "-----END CERTIFICATE-----\n"
    return [piece + end for piece in bundle.split(end) if piece.strip()]


def authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What a certificate says of its issuer's key: in the issuer's own words, which may be any bytes."""
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_subject_key_identifier(authority))


def certificate_usage(*, authority: bool) -> x509.KeyUsage:
    """For a CA's certificate, or for a node's."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_key_identifier(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    found = _extension(certificate, x509.SubjectKeyIdentifier)
    if found is not None:
        return found
    public = certificate.public_key()
    return x509.SubjectKeyIdentifier.from_public_key(public)


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, ValueError):
        return None
