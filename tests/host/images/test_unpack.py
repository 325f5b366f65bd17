import contextlib
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.layers import compress, directory, hardlink, make_tar, member, symlink
from worker.images.digest import digest_of
from worker.images.errors import DigestMismatch, InvalidImage
from worker.images.unpack import Limits, unpack_layer

pytestmark = pytest.mark.host

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("untouched")
    path = tmp_path / "root"
    path.mkdir()
    return path


def unpack(root: Path, *members: Member, limits: Limits | None = None) -> None:
    unpack_layer(io.BytesIO(make_tar(*members)), root, limits=limits)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_contents_and_metadata(root: Path, how: str) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    tar = make_tar(
        directory("./", mode=0o751),
        directory("d/", mode=0o1777, uid=5, gid=6, mtime=1_600_000_000),
        member("d/f", b"hello", mode=0o4755, uid=1000, gid=1001, mtime=1_500_000_000),
        hardlink("d/g", "d/f"),
        symlink("d/s", "/etc/passwd"),
        member("p", type=tarfile.FIFOTYPE, mode=0o600),
        member("cap", b"x", pax_headers={"SCHILY.xattr.security.capability": capability.decode("latin-1")}),
        member("implied/parent/file", b""),
    )
    packed = compress(tar, how)
    unpacked = unpack_layer(io.BytesIO(packed), root, expected=digest_of(tar))
    assert (unpacked.diff_id, unpacked.tar_bytes, unpacked.size) == (digest_of(tar), len(tar), 6)
    file = (root / "d/f").stat()
    assert (root / "d/f").read_bytes() == b"hello"
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid) == (0o4755, 1000, 1001)
    assert (file.st_mtime_ns, file.st_nlink) == (1_500_000_000 * 10**9, 2)
    assert (root / "d/g").stat().st_ino == file.st_ino
    where = (root / "d").stat()
    assert (stat.S_IMODE(where.st_mode), where.st_uid, where.st_mtime) == (0o1777, 5, 1_600_000_000)
    assert (root / "d/s").readlink() == Path("/etc/passwd")
    assert stat.S_ISFIFO((root / "p").stat().st_mode)
    assert os.getxattr(root / "cap", "security.capability") == capability
    assert stat.S_IMODE((root / "implied/parent").stat().st_mode) == 0o755
    assert stat.S_IMODE(root.stat().st_mode) == 0o751


def test_whiteouts(root: Path) -> None:
    unpack(
        root,
        directory("d"),
        member("d/.wh.gone", b""),
        directory("o"),
        member("o/.wh..wh..opq", b""),
        member("o/new", b""),
        member(".wh..wh.plnk", b""),
        member(".wh.remade", b""),
        directory("remade"),
        directory("kept"),
        member(".wh.kept", b""),
        member("own", b"x"),
        member(".wh.own", b""),
        member("raw", type=tarfile.CHRTYPE),
    )
    assert is_whiteout(root / "d/gone")
    assert is_whiteout(root / "raw")
    assert is_opaque(root / "o")
    assert not is_opaque(root / "d")
    assert is_opaque(root / "remade")
    assert is_opaque(root / "kept")
    assert (root / "own").read_bytes() == b"x"
    assert not list(root.glob("**/.wh.*"))


def test_overlay_hides_what_a_layer_deletes(tmp_path: Path) -> None:
    lower, upper, merged = (tmp_path / name for name in ("lower", "upper", "merged"))
    for path in (lower, upper, merged):
        path.mkdir()
    unpack(lower, member("a", b"1"), member("b", b"1"), member("d/old", b"1"))
    unpack(upper, member(".wh.a", b""), member("d/.wh..wh..opq", b""), member("d/new", b"2"))
    subprocess.run(
        ["/bin/mount", "-t", "overlay", "overlay", "-o", f"lowerdir={upper}:{lower},ro", merged], check=True
    )
    try:
        assert sorted(os.listdir(merged)) == ["b", "d"]
        assert os.listdir(merged / "d") == ["new"]
    finally:
        subprocess.run(["/bin/umount", merged], check=True)


def test_later_entries_replace_earlier_ones(root: Path) -> None:
    unpack(
        root,
        directory("x"),
        member("x/y", b"1"),
        member("x", b"file"),
        symlink("l", "elsewhere"),
        member("l", b"now a file"),
        member("z", b""),
        directory("z"),
        member("z/in", b"2"),
    )
    assert (root / "x").read_bytes() == b"file"
    assert (root / "l").read_bytes() == b"now a file"
    assert (root / "z/in").read_bytes() == b"2"


def test_links_are_followed_inside_the_root_only(root: Path) -> None:
    unpack(
        root,
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        member("lib/a", b"a"),
        symlink("abs", "/usr"),
        member("abs/b", b"b"),
        symlink("up", "../../../../usr"),
        member("up/c", b"c"),
    )
    assert (root / "usr/lib/a").read_bytes() == b"a"
    assert (root / "usr/b").read_bytes() == b"b"
    assert (root / "usr/c").read_bytes() == b"c"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("../evil", b"x")], "leaves"),
        ([member("a/../../evil", b"x")], "leaves"),
        ([hardlink("h", "../outside")], "leaves"),
        ([hardlink("h", "/outside")], "not in the layer"),
        ([symlink("s", "../outside"), member("s/x", b"x")], "s"),
        ([hardlink("h", "h")], "itself"),
        ([directory("d"), hardlink("h", "d")], "not a file"),
        ([member(".wh.x", b""), hardlink("h", "x")], "not a file"),
        ([member("sda", type=tarfile.BLKTYPE, devmajor=8)], "device"),
        ([member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "device"),
        ([member("zero", type=tarfile.BLKTYPE)], "device"),
        ([member(".wh...", b"")], "whiteout"),
        ([member(".wh.", b"")], "whiteout"),
        ([member(".wh.d/x", b"")], "whiteout"),
        ([member("f", b""), member("f/x", b"")], "not a directory"),
        ([member("/".join("d" * 300), b"")], "too deep"),
        ([symlink("loop", "loop"), member("loop/x", b"")], "not a directory"),
    ],
)
def test_tricks_are_refused(root: Path, members: list[Member], words: str) -> None:
    with pytest.raises(InvalidImage, match=words):
        unpack(root, *members)
    assert (root.parent / "outside").read_text() == "untouched"
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "root"]


def test_writing_through_a_symlink_replaces_the_link(root: Path) -> None:
    unpack(root, symlink("s", "../outside"), member("s", b"inside"))
    assert (root / "s").read_bytes() == b"inside"
    assert (root.parent / "outside").read_text() == "untouched"


def test_chained_links_cannot_build_endless_depth(root: Path) -> None:
    deep = "/".join("d" * 200)
    members = [directory(deep)]
    for step in range(3):
        members += [symlink(f"s{step}", f"{deep}" if step == 0 else f"s{step - 1}/{deep}")]
        members += [directory(f"s{step}/{deep}")]
    with pytest.raises(InvalidImage, match="too deep"):
        unpack(root, *members)


def test_devices_in_dev_are_left_to_the_runtime(root: Path) -> None:
    unpack(root, directory("dev"), member("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3))
    assert os.listdir(root / "dev") == []


def test_overlay_attributes_of_a_layer_are_ignored(root: Path) -> None:
    tricks = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y"}
    unpack(root, member("f", b"", pax_headers={**tricks, "SCHILY.xattr.user.fine": "1"}))
    assert os.listxattr(root / "f") == ["user.fine"]


def test_bombs_are_refused(root: Path) -> None:
    with pytest.raises(InvalidImage, match="more than 3 entries"):
        unpack(root, *(member(f"f{n}", b"") for n in range(4)), limits=Limits(entries=3))
    bomb = compress(make_tar(member("zeros", bytes(8 << 20))), "gzip")
    with pytest.raises(InvalidImage, match="more than 1000000 bytes"):
        unpack_layer(io.BytesIO(bomb), root, limits=Limits(tar_bytes=1_000_000))


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_truncated_and_wrong_content(root: Path, how: str) -> None:
    tar = make_tar(member("f", os.urandom(100_000)))
    packed = compress(tar, how)
    with pytest.raises((InvalidImage, DigestMismatch)):
        unpack_layer(io.BytesIO(packed[: len(packed) // 2]), root, expected=digest_of(tar))
    with pytest.raises(DigestMismatch):
        unpack_layer(io.BytesIO(packed), root, expected="sha256:" + "0" * 64)


names = st.sampled_from(
    ["a", "b", "a/b", "a/b/c", "../x", "/a", ".wh.a", "a/.wh.b", ".wh..wh..opq", "./", "a/../b"]
)
targets = st.sampled_from(["a", "/a", "b", "..", "../..", "/", "../outside", "a/b", "/../../outside"])
members = st.one_of(
    st.builds(lambda n, c: member(n, c), names, st.binary(max_size=20)),
    st.builds(directory, names),
    st.builds(symlink, names, targets),
    st.builds(hardlink, names, targets),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(members, max_size=12))
def test_no_sequence_of_entries_touches_the_outside(tmp_path: Path, entries: list[Member]) -> None:
    with_root = tmp_path / "w"
    subprocess.run(["/bin/rm", "-rf", with_root], check=True)
    (with_root / "root").mkdir(parents=True)
    (with_root / "outside").write_text("untouched")
    before = (with_root / "outside").stat()
    with contextlib.suppress(InvalidImage):
        unpack(with_root / "root", *entries)
    after = (with_root / "outside").stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_nlink) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_nlink,
    )
    assert sorted(os.listdir(with_root)) == ["outside", "root"]
