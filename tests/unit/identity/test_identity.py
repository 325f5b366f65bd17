"""Root CA, tokens and certificates."""

import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument, Unauthorized
from cluster.identity import (
    CLOCK_SKEW,
    Identity,
    ca_digest,
    check_identity,
    check_root_ca,
    create_csr,
    create_root_ca,
    issue_certificate,
    new_join_token,
    parse_join_token,
    peer_of_der,
    renewal_time,
    token_role,
)
from cluster.root_ca import issuer
from cluster.seams import SECOND
from cluster.states import Role

NOW = 1_700_000_000 * SECOND
DAY = 24 * 3600 * SECOND
CA = create_root_ca(NOW)
RNG = random.Random(1)


def identity(role: Role = Role.WORKER, lifetime: int = 90 * DAY, ca: tuple[bytes, bytes] = CA) -> Identity:
    key, csr = create_csr()
    certificate = issue_certificate(
        ca, csr, node_id="n1", role=role, cluster_id="c1", now=NOW, lifetime=lifetime
    )
    return Identity(certificate, key, CA[0])


@pytest.mark.parametrize("role", list(Role))
def test_a_certificate_says_who_the_node_is(role: Role) -> None:
    peer = check_identity(identity(role), NOW)
    assert (peer.node_id, peer.role, peer.cluster_id) == ("n1", role, "c1")
    assert peer.not_before == NOW - CLOCK_SKEW
    assert peer.not_after == NOW + 90 * DAY
    subject = x509.load_pem_x509_certificate(identity(role).certificate).subject.rfc4514_string()
    assert subject == f"CN=n1,OU=swarm-{role.value},O=c1"


def test_an_expired_certificate_is_refused() -> None:
    with pytest.raises(Unauthorized, match="expired at 2024-02-12"):
        check_identity(identity(), NOW + 90 * DAY)


def test_a_foreign_certificate_is_refused() -> None:
    with pytest.raises(Unauthorized, match="not issued by"):
        check_identity(identity(ca=create_root_ca(NOW)), NOW)


def test_anothers_key_is_refused() -> None:
    with pytest.raises(Unauthorized, match="does not belong"):
        check_identity(identity()._replace(key=identity().key), NOW)


def test_the_root_is_no_node() -> None:
    der = x509.load_pem_x509_certificate(CA[0]).public_bytes(serialization.Encoding.DER)
    with pytest.raises(Unauthorized, match="not a node's"):
        peer_of_der(der)


@pytest.mark.parametrize("csr", [b"", b"junk", CA[0]])
def test_unsound_requests_are_refused(csr: bytes) -> None:
    with pytest.raises(InvalidArgument, match="certificate request"):
        issue_certificate(CA, csr, node_id="n", role=Role.WORKER, cluster_id="c", now=NOW, lifetime=DAY)


def test_a_request_signed_with_another_key_is_refused() -> None:
    _, csr = create_csr()
    parsed = x509.load_pem_x509_csr(csr)
    raw = bytearray(parsed.public_bytes(serialization.Encoding.DER))
    raw[-1] ^= 1
    try:
        pem = x509.load_der_x509_csr(bytes(raw)).public_bytes(serialization.Encoding.PEM)
    except ValueError:
        pytest.skip("this signature's last byte can't be changed in DER")
    with pytest.raises(InvalidArgument, match="certificate request"):
        issue_certificate(CA, pem, node_id="n", role=Role.WORKER, cluster_id="c", now=NOW, lifetime=DAY)


def test_tokens_have_swarms_form_and_name_their_ca() -> None:
    text = new_join_token(CA[0], RNG)
    token = parse_join_token(f" {text}\n")
    assert str(token) == text
    assert text.startswith("SWMTKN-1-")
    assert (len(token.digest), len(token.secret)) == (50, 25)
    assert token.digest == ca_digest(CA[0])
    check_root_ca(token, CA[0])
    with pytest.raises(Unauthorized, match="does not match fingerprint"):
        check_root_ca(token, create_root_ca(NOW)[0])


@given(st.text(max_size=100) | st.from_regex(r"SWMTKN-1-[a-zA-Z0-9]{48,52}-[a-z0-9]{24,26}", fullmatch=True))
def test_what_is_no_token_is_refused_or_read_exactly(text: str) -> None:
    try:
        token = parse_join_token(text)
    except InvalidArgument:
        return
    assert str(token) == text.strip()


def test_a_token_gives_its_role() -> None:
    worker, manager, other = (new_join_token(CA[0], RNG) for _ in range(3))
    assert token_role(worker, worker, manager) is Role.WORKER
    assert token_role(manager, worker, manager) is Role.MANAGER
    for wrong in (other, "", worker[:-1]):
        with pytest.raises(Unauthorized, match="valid join token"):
            token_role(wrong, worker, manager)
    with pytest.raises(Unauthorized):
        token_role("", "", "")


@given(st.integers(0, 1000))
def test_renewal_comes_in_the_second_half_and_well_before_expiry(seed: int) -> None:
    peer = identity().peer
    due = renewal_time(peer, random.Random(seed))
    issued = peer.not_before + CLOCK_SKEW
    lifetime = peer.not_after - issued
    assert lifetime * 0.5 <= due - issued <= lifetime * 0.8


def test_issuer_is_der() -> None:
    subject, key = issuer(CA[0])
    assert b"swarm-ca" in subject
    serialization.load_der_public_key(key)
