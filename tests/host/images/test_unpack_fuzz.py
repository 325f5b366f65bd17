"""Layers made to do harm: nothing outside the directory changes, no device is made, InvalidImage says why."""

import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.layers import compress, make_tar, member
from worker.images.errors import InvalidImage
from worker.images.unpack import Limits, unpack_layer

pytestmark = pytest.mark.host

LIMITS = Limits(tar_bytes=4 << 20, entries=200)

words = st.sampled_from(
    ["a", "b", "c"] * 8 + ["dev", "..", ".", "", ".wh.a", ".wh.b", ".wh..", ".wh..wh..opq", "n" * 256]
)
leads = st.sampled_from(["", "/"] * 8 + ["../", "a/../../"])
paths = st.builds(lambda lead, parts: lead + "/".join(parts), leads, st.lists(words, min_size=1, max_size=4))
targets = paths | st.sampled_from(
    [
        "/",
        "..",
        "../../outside/kept",
        "/proc/self/root/etc",
        "/proc/self/fd/3",
        "/dev/null",
        "\udcff",
        "l" * 4095,
    ]
)
kinds = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
     tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE]
)  # fmt: skip
numbers = st.sampled_from([0, 1, 33, 0o755, 0o7777] * 8 + [2**21, 2**31, 2**32 - 1, 2**32, 2**40])
names = ["user.a", "trusted.overlay.opaque", "user.overlay.opaque", "security.capability"]
attributes = st.dictionaries(st.sampled_from(names), st.text(max_size=4), max_size=1)


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    """One entry, sound or not."""
    kind = draw(kinds)
    content = draw(st.binary(max_size=40)) if kind == tarfile.REGTYPE else b""
    headers = {f"SCHILY.xattr.{name}": value for name, value in draw(attributes).items()}
    if draw(st.integers(0, 9)) == 0:
        headers["mtime"] = draw(st.sampled_from(["1e9", "-5.5", "9" * 20, "nan", ""]))
    return member(
        draw(paths),
        content,
        type=kind,
        linkname=draw(targets),
        mode=draw(numbers) & 0o7777,
        uid=draw(numbers),
        gid=draw(numbers),
        devmajor=draw(st.integers(0, 1)),
        devminor=draw(st.integers(0, 1)),
        pax_headers=headers,
    )


layers = st.tuples(
    st.lists(members(), max_size=6),
    st.sampled_from(["gzip", "zstd", "none"]),
    st.integers(0, 3000),
    st.booleans(),
)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="shoal-unpack-") as folder:
        yield Path(folder)


def outside_of(place: Path) -> dict[str, tuple[object, ...]]:
    """All that an entry could reach by leaving its directory."""
    seen = {}
    for path in (place, place / "outside", place / "outside" / "kept", Path("/dev/null"), Path("/etc")):
        found = path.lstat()
        seen[str(path)] = (found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_ino)
    return seen


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(layer=layers)
def test_nothing_leaves_the_directory(
    place: Path, layer: tuple[list[tuple[tarfile.TarInfo, bytes]], str, int, bool]
) -> None:
    entries, how, cut, whole = layer
    try:
        packed = compress(make_tar(*entries), how)
    except (ValueError, UnicodeError):  # not even a tar
        return
    if not whole:
        packed = packed[:cut]
    (place / "outside").mkdir(exist_ok=True)
    (place / "outside" / "kept").write_text("kept")
    root = place / "root"
    root.mkdir()
    before = outside_of(place)
    try:
        unpack_layer(io.BytesIO(packed), root, limits=LIMITS)
    except InvalidImage:
        pass
    else:
        for path in everything_in(root):
            found = path.lstat()
            assert not stat.S_ISBLK(found.st_mode)
            assert not stat.S_ISCHR(found.st_mode) or found.st_rdev == 0
            assert not [name for name in attributes_of(path) if name.startswith("user.overlay.")]
    finally:
        assert outside_of(place) == before
        assert (place / "outside" / "kept").read_text() == "kept"
        assert sorted(os.listdir(place / "outside")) == ["kept"]
        shutil.rmtree(root)
        assert sorted(os.listdir(place)) == ["outside"]


def everything_in(root: Path) -> Iterator[Path]:
    """Not by rglob, which looks where links lead: a target may be too long a name."""
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in [*folders, *files])


def attributes_of(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_bomb_stops_at_its_limit(place: Path, how: str) -> None:
    bomb = compress(make_tar(member("zeros", bytes(16 << 20))), how)
    assert len(bomb) < 64 << 10
    root = place / "bomb"
    root.mkdir()
    with pytest.raises(InvalidImage, match="more than"):
        unpack_layer(io.BytesIO(bomb), root, limits=LIMITS)
    assert sum(path.stat().st_size for path in root.rglob("*")) <= LIMITS.tar_bytes
    shutil.rmtree(root)


def test_a_layer_of_very_many_entries_stops_at_its_limit(place: Path) -> None:
    root = place / "many"
    root.mkdir()
    with pytest.raises(InvalidImage, match="entries"):
        unpack_layer(io.BytesIO(make_tar(*(member(f"f{n}", b"") for n in range(201)))), root, limits=LIMITS)
    shutil.rmtree(root)
