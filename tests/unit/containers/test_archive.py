"""Files into and out of a directory as if it were a container's root."""

import gzip
import hashlib
import io
import os
import random
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import InvalidArgument, NotFound
from worker.api.container_files import _reader
from worker.containers import archive
from worker.containers.archive import Extraction
from worker.containers.changes import ADDED, MODIFIED, changes
from worker.runtime import rootfs
from worker.runtime.rootfs import Root


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc" / "passwd").write_text("root\n")
    (made / "abs").symlink_to("/etc")
    (made / "up").symlink_to("../../../../../etc")
    return made


@pytest.fixture
def root(home: Path) -> Iterator[Root]:
    with rootfs.opened(home) as opened:
        yield opened


def packed(root: Root, path: str) -> dict[str, tarfile.TarInfo]:
    written = bytearray()
    archive.write_tar(root, path, written.extend)
    with tarfile.open(fileobj=io.BytesIO(bytes(written))) as tar:
        return {member.name: member for member in tar.getmembers()}


def put(
    root: Root, path: str, members: list[tuple[tarfile.TarInfo, bytes]], how: Extraction | None = None
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            member.uid, member.gid = os.getuid(), os.getgid()
            tar.addfile(member, io.BytesIO(data))
    buffer.seek(0)
    archive.extract(root, path, buffer.read, how or Extraction())


def file(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def of_kind(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, 0o755
    return member


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/etc", {"etc", "etc/passwd"}),
        ("/etc/", {"etc", "etc/passwd"}),
        ("/etc/.", {".", "./passwd"}),
        ("/etc/passwd", {"passwd"}),
        ("/abs", {"abs"}),
        ("/abs/passwd", {"passwd"}),
        ("/up/passwd", {"passwd"}),
    ],
)
def test_names_in_an_archive(root: Root, path: str, names: set[str]) -> None:
    assert set(packed(root, path)) == names


def test_what_a_path_is(root: Root) -> None:
    assert archive.path_stat(root, "/etc").mode & 1 << 31
    link = archive.path_stat(root, "/abs")
    assert (link.mode & 1 << 27, link.link) == (1 << 27, "/etc")
    assert archive.path_stat(root, "/etc/passwd").size == 5
    for missing in ("/no", "/etc/no/such", "/etc/passwd/x"):
        with pytest.raises(NotFound):
            archive.path_stat(root, missing)


def test_there_and_back(root: Root, home: Path) -> None:
    put(
        root,
        "/etc",
        [
            (of_kind("new", tarfile.DIRTYPE), b""),
            (file("new/file"), b"content"),
            (of_kind("new/link", tarfile.SYMTYPE, "file"), b""),
            (of_kind("new/hard", tarfile.LNKTYPE, "new/file"), b""),
            (of_kind("pipe", tarfile.FIFOTYPE), b""),
            (file("passwd"), b"other"),
        ],
    )
    assert (home / "etc/new/file").read_text() == "content"
    assert (home / "etc/new/link").readlink() == Path("file")
    assert (home / "etc/new/hard").stat().st_ino == (home / "etc/new/file").stat().st_ino
    assert (home / "etc/passwd").read_text() == "other"
    assert {"etc/new/file", "etc/new/link", "etc/pipe"} <= set(packed(root, "/etc"))


def test_no_link_leads_out(root: Root, home: Path) -> None:
    put(root, "/", [(file("up/made"), b"inside"), (file("abs/too"), b"inside")])
    assert (home / "etc/made").read_text() == (home / "etc/too").read_text() == "inside"
    assert not Path("/etc/made").exists()
    with pytest.raises(InvalidArgument):
        put(root, "/", [(file("../out"), b"")])
    put(root, "/etc", [(of_kind("evil", tarfile.SYMTYPE, "/"), b""), (file("evil/here"), b"inside")])
    assert (home / "here").read_text() == "inside"


def test_modes_are_not_changed_through_links(home: Path, tmp_path: Path) -> None:
    """A container may put a link in the place of what was just made: it must not lead to this machine."""
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    (home / "swapped").symlink_to(outside)
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        rootfs.change_mode(directory, "swapped", 0o777)
        rootfs.change_mode(directory, "etc", 0o711)
    finally:
        os.close(directory)
    assert outside.stat().st_mode & 0o7777 == 0o600
    assert (home / "etc").stat().st_mode & 0o7777 == 0o711


@pytest.mark.parametrize("content", [b"", b"x", random.Random(1).randbytes(600_000), bytes(24 << 20)])
@pytest.mark.parametrize("packed", [True, False])
def test_what_is_compressed_is_read_a_piece_at_a_time(content: bytes, packed: bool) -> None:
    stream = io.BytesIO(gzip.compress(content, 9) + bytes(8 << 20) if packed else content)
    tracemalloc.start()
    try:
        read = _reader(stream.read)
        found = hashlib.sha256()
        while data := read(100_000):
            found.update(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert found.digest() == hashlib.sha256(content).digest()


def test_what_is_compressed_badly() -> None:
    broken = bytearray(gzip.compress(random.Random(1).randbytes(10_000)))
    broken[5000] ^= 1
    read = _reader(io.BytesIO(bytes(broken)).read)
    with pytest.raises(InvalidArgument, match="unpacked"):
        list(iter(lambda: read(512), b""))


def test_kinds_are_kept_if_asked(root: Root, home: Path) -> None:
    keep = Extraction(keep_kinds=True)
    with pytest.raises(InvalidArgument, match="cannot overwrite directory"):
        put(root, "/", [(file("etc"), b"x")], keep)
    with pytest.raises(InvalidArgument, match="cannot overwrite non-directory"):
        put(root, "/etc", [(of_kind("passwd", tarfile.DIRTYPE), b"")], keep)
    with pytest.raises(InvalidArgument, match="not a directory"):
        put(root, "/etc/passwd", [(file("x"), b"x")])
    with pytest.raises(NotFound):
        put(root, "/missing", [(file("x"), b"x")])
    assert (home / "etc/passwd").read_text() == "root\n"


def test_changes(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for directory in (lower / "etc", lower / "srv", upper / "etc", upper / "srv/new", upper / "proc"):
        directory.mkdir(parents=True)
    (lower / "etc/passwd").write_text("")
    (upper / "srv/new/file").write_text("")
    (upper / "etc/hosts").write_text("")  # the runtime's, to mount on
    (upper / "data").mkdir()
    assert changes(upper, [lower], ["/data"]) == [
        ("/srv", MODIFIED), ("/srv/new", ADDED), ("/srv/new/file", ADDED),
    ]  # fmt: skip
