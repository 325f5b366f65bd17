"""What fuzzing and a reader's eye found in parsers, once each: every test here has failed."""

import io
import random
import ssl
import time
import tracemalloc
from base64 import encodebytes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster import template
from cluster.codec import UNREADABLE
from cluster.errors import InvalidArgument, Unavailable
from cluster.identity import (
    check_root_ca,
    create_root_ca,
    issue_certificate,
    new_join_token,
    parse_join_token,
)
from cluster.messages import UnknownMessage, agent_messages, manager_messages
from cluster.root_ca import issuer
from cluster.seams import SECOND
from cluster.states import Role
from manager.backup.file import DamagedBackup, Scrypt
from manager.raft.wire import BadFrame, FrameReader, Hello, encode
from shoal.daemon.membership import MembershipStore
from tests.support.layers import make_tar, member
from worker.images.archive import Archive
from worker.images.auth import parse_challenges
from worker.images.config import ImageConfig, encode_config
from worker.images.errors import InvalidImage
from worker.images.tarstream import Entry, TarReader
from worker.logs.format import Joiner, parse_line
from worker.runtime.directory import CONFIG, STATE, Layout


@contextmanager
def quickly(seconds: float = 2.0) -> Iterator[None]:
    """CPU time: with the defect these took minutes or hours."""
    begun = time.process_time()
    yield
    assert time.process_time() - begun < seconds


@contextmanager
def in_memory_of(size: int) -> Iterator[None]:
    """Bytes that Python allocates at the same time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def entries(tar: bytes) -> list[Entry]:
    return list(TarReader(io.BytesIO(tar).read))


def test_raft_a_text_that_is_not_utf8() -> None:
    with pytest.raises(BadFrame):
        FrameReader().feed(encode(Hello(address="ab")).replace(b"ab", b"\xff\xff"))


@pytest.mark.parametrize("header", ["x" + " " * 60_000 + "\x01", "a" * 60_000])
def test_challenges_take_linear_time(header: str) -> None:
    with quickly():
        parse_challenges(header)


@pytest.mark.parametrize("text", ["{{" + " " * 60_000, "{{ " * 30_000])
def test_templates_take_linear_time(text: str) -> None:
    with quickly(), pytest.raises(InvalidArgument):
        template.expand(text, template.Fields())


@pytest.mark.parametrize("mtime", ["9" * 20, "-" + "9" * 20])
def test_a_layers_time_that_no_clock_has_is_cut(mtime: str) -> None:
    (entry,) = entries(make_tar(member("a", b"", pax_headers={"mtime": mtime})))
    assert abs(entry.mtime) == 1 << 63


def test_a_layers_attribute_with_a_zero_in_its_name() -> None:
    tar = make_tar(member("a", b"", pax_headers={"SCHILY.xattr.user.a#b": "x"}))
    with pytest.raises(InvalidImage, match="attribute"):
        entries(tar.replace(b"user.a#b", b"user.a\0b"))


def test_an_owner_that_chown_takes_for_nobody() -> None:
    with pytest.raises(InvalidImage, match="owner"):
        entries(make_tar(member("a", b"", pax_headers={"uid": str(2**32 - 1)})))


def test_names_of_global_attributes_count_too() -> None:
    """Each header is within its bound; together they were not."""

    def tar() -> Iterator[bytes]:
        for number in range(64):
            name = f"SCHILY.xattr.user.{number}".ljust(900_000, "n")
            record = f"{len(name) + 9} {name}=\n".encode()
            header = make_tar(member("g", record, type=b"g"), format=0)
            yield header[: 512 + len(record) + -len(record) % 512]
            yield make_tar(member(f"f{number}", b""), format=0)[:512]

    pieces = b"".join(tar())
    with in_memory_of(32 << 20), pytest.raises(InvalidImage, match="exceed"):
        for _ in TarReader(io.BytesIO(pieces).read):
            pass


def test_an_archive_whose_many_images_share_one_file() -> None:
    config = encode_config(ImageConfig(labels={"x": "y" * 1_000_000}), [])
    images = msgspec.json.encode([{"Config": "c", "Layers": []}] * 500)
    tar = make_tar(member("manifest.json", images), member("c", config))
    with in_memory_of(300 << 20), pytest.raises(InvalidImage, match="too many"):
        Archive(io.BytesIO(tar), 1 << 30).images()


def test_a_line_in_very_many_parts() -> None:
    joiner = Joiner()
    with in_memory_of(1 << 20):
        for _ in range(20_000):
            part = parse_line(b"2026-11-21T12:47:23Z stdout P x")
            assert part is not None
            assert joiner.add(part) is None
    assert joiner.rest()[0].data == b"x" * 20_000


@pytest.mark.parametrize(
    ("sound", "odd"),
    [
        (
            bytes.fromhex("06072a8648ce3d0201"),
            bytes.fromhex("06072a8648ce3d027f"),
        ),  # a key of an unknown kind
        (b"\x02\x01\x00", b"\x02\x01\x02"),  # a version that there is not
    ],
)
def test_a_certificate_request_of_another_kind(sound: bytes, odd: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    der = request.public_bytes(serialization.Encoding.DER)
    assert sound in der
    pem = x509_pem(der.replace(sound, odd, 1))
    with pytest.raises(InvalidArgument):
        issue_certificate(
            create_root_ca(0),
            pem,
            node_id="n",
            role=Role.WORKER,
            cluster_id="c",
            now=0,
            lifetime=3600 * SECOND,
        )


def test_a_root_certificate_of_a_version_that_there_is_not() -> None:
    pem = create_root_ca(0)[0]
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    odd = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    with pytest.raises(InvalidArgument):
        issuer(b"-----BEGIN CERTIFICATE-----\n" + encodebytes(odd) + b"-----END CERTIFICATE-----\n")


def test_a_root_certificate_that_brings_another_along() -> None:
    """The token names the first; OpenSSL would have trusted a liar's own, too, and told it the token."""
    ours, liars = create_root_ca(0)[0], create_root_ca(0)[0]
    token = parse_join_token(new_join_token(ours, random.Random(1)))
    trusted = check_root_ca(token, ours + liars)
    assert trusted == ours
    assert len(ssl.create_default_context(cadata=(ours + liars).decode()).get_ca_certs()) == 2
    assert len(ssl.create_default_context(cadata=trusted.decode()).get_ca_certs()) == 1


@pytest.mark.parametrize(("n", "r"), [(3, 8), (1 << 20, 32), (1 << 17, 32), (0, 8), (1, 8), (-8, 8), (8, 0)])
def test_a_backup_that_asks_for_absurd_work(n: int, r: int) -> None:
    with quickly(), pytest.raises(DamagedBackup):
        Scrypt("00", n=n, r=r).key("secret")


@pytest.mark.parametrize("read", [agent_messages().decode, manager_messages().decode])
def test_a_session_frame_of_nested_lists(read: Callable[[bytes], object]) -> None:
    """In a field that this version does not have, which is carried along."""
    frame = b"\x82\xa1t\xa9heartbeat\xa4deep" + b"\x91" * 100_000 + b"\x90"
    with pytest.raises((*UNREADABLE, ValueError, UnknownMessage)):
        read(frame)


@pytest.mark.parametrize(
    "damage", [b'{"node_id":"\xff","id":"\xff","status":"\xff"}', b"[" * 100_000, b'{"id":', b"[]"]
)
def test_damaged_files_of_a_node_are_told_or_dropped(tmp_path: Path, damage: bytes) -> None:
    """A flipped bit that made text no text kept the daemon from starting."""
    (tmp_path / "state.json").write_bytes(damage)
    with pytest.raises(Unavailable, match="restore the file"):
        MembershipStore(tmp_path).load()
    home = tmp_path / "containers" / "c1"
    home.mkdir(parents=True)
    (home / CONFIG).write_bytes(damage)
    (home / STATE).write_bytes(damage)
    assert list(Layout(tmp_path / "containers", tmp_path / "run").load()) == [("c1", None, None)]


def x509_pem(der: bytes) -> bytes:
    """A request in PEM, whatever is in it."""
    return (
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"
    )
