import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.layers import directory, hardlink, make_tar, member, symlink
from worker.images.errors import InvalidImage
from worker.images.tarstream import Kind, TarReader

names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=150).filter(
    lambda name: name not in (".", "..")
)
FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(names, st.binary(max_size=1500), st.integers(0, 2**31), st.integers(0, 4_000_000)),
        max_size=5,
    ),
    st.sampled_from(FORMATS),
)
def test_reads_what_the_standard_library_writes(
    files: list[tuple[str, bytes, int, int]], format: int
) -> None:
    tar = make_tar(*(member(n, c, mtime=m, uid=u, gid=u) for n, c, m, u in files), format=format)
    reader = TarReader(io.BytesIO(tar).read)
    seen = [(e.name, b"".join(reader.content()), e.mtime // 10**9, e.uid) for e in reader]
    assert seen == files


@pytest.mark.parametrize("format", FORMATS)
def test_knows_every_kind(format: int) -> None:
    tar = make_tar(
        directory("d/"),
        member("f" * 200, b"x"),
        symlink("s", "t" * 180),
        hardlink("h", "f" * 200),
        member("c", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("p", type=tarfile.FIFOTYPE),
        format=format,
    )
    entries = list(TarReader(io.BytesIO(tar).read))
    kinds = [Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.HARD_LINK, Kind.CHAR_DEVICE, Kind.FIFO]
    assert [entry.kind for entry in entries] == kinds
    assert entries[1].name == "f" * 200
    assert entries[2].link == "t" * 180
    assert entries[4].device == (1, 3)


def test_huge_extension_header_is_refused_unread() -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type = tarfile.XHDTYPE
    info.size = 1 << 40
    reads: list[int] = []
    source = io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(512))

    def read(size: int) -> bytes:
        reads.append(size)
        return source.read(size)

    with pytest.raises(InvalidImage, match="too large"):
        list(TarReader(read))
    assert max(reads) == 512


def test_endless_chain_of_extension_headers_is_refused() -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    record = b"%d path=" % (600_000) + b"a" * (600_000 - len(b"600000 path=") - 1) + b"\n"
    info.size = len(record)
    one = info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)
    with pytest.raises(InvalidImage, match="exceed"):
        list(TarReader(io.BytesIO(one * 3).read))


@settings(max_examples=300)
@given(st.binary(max_size=2048))
def test_garbage_is_refused_or_read(content: bytes) -> None:
    try:
        list(TarReader(io.BytesIO(content).read))
    except InvalidImage:
        return


@settings(max_examples=300)
@given(st.data())
def test_damaged_headers_are_refused_or_read(data: st.DataObject) -> None:
    tar = bytearray(make_tar(member("a" * 120, b"content", uid=1 << 22), directory("d"), symlink("s", "a")))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(tar) - 1))
        tar[position] = data.draw(st.integers(0, 255))
        block = position // 512 * 512
        total = sum(tar[block : block + 512]) - sum(tar[block + 148 : block + 156]) + 8 * 32
        tar[block + 148 : block + 156] = b"%06o\0 " % total
    try:
        list(TarReader(io.BytesIO(bytes(tar)).read))
    except InvalidImage:
        return
