"""Certificates that somebody made up are refused in words, whatever is wrong with them."""

import contextlib
from base64 import encodebytes

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import ShoalError
from cluster.identity import check_issued, check_proof, create_csr, create_root_ca, prove
from cluster.root_ca import checked_root, issuer_among, vouched_for
from cluster.seams import SECOND
from cluster.states import Role
from tests.support.cfssl import CertificateAuthority

NOW = 1_800_000_000 * SECOND
ROOT, KEY = create_root_ca(NOW)
DER = x509.load_pem_x509_certificate(ROOT).public_bytes(serialization.Encoding.DER)
_, CSR = create_csr()


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + encodebytes(der) + b"-----END CERTIFICATE-----\n"


flips = st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), min_size=1, max_size=6)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=300, deadline=None)
@given(flips)
def test_changed_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DER)
    for at, value in changes:
        data[at] = value
    text = pem(bytes(data))
    with contextlib.suppress(ShoalError):
        checked_root(text.decode(), "", NOW)
    with contextlib.suppress(ShoalError):
        check_proof(text, ROOT, CSR, b"proof")
    with contextlib.suppress(ShoalError):
        vouched_for(text + ROOT, ROOT + ROOT)
    with contextlib.suppress(ShoalError):
        check_issued(text, ROOT, CSR, node_id="n", role=Role.WORKER, cluster_id="c", now=NOW)
    issuer_among(bytes(data), (ROOT,))


def test_the_root_itself_proves_nothing() -> None:
    with pytest.raises(ShoalError, match="node's"):
        check_proof(ROOT, ROOT, CSR, prove(KEY, CSR))


def test_a_sound_one_passes() -> None:
    root = CertificateAuthority()
    made = root.certificate.public_bytes(serialization.Encoding.PEM)
    now = int(root.certificate.not_valid_before_utc.timestamp() + 600) * SECOND
    assert checked_root(made.decode(), "", now) == (made, b"")
