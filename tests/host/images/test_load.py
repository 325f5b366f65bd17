"""`docker load`, and what an archive may not do."""

import gzip
import io
import json
import os
import subprocess
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.fakes.registry import FakeRegistry
from tests.support.images import build_image
from tests.support.instant_clock import InstantClock
from tests.support.layers import MadeImage, make_image, make_tar, member, symlink
from worker.images.config import ImageConfig
from worker.images.digest import digest_of, hex_of
from worker.images.errors import DigestMismatch, InvalidImage
from worker.images.store import ImageStore

pytestmark = pytest.mark.host


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = ImageStore(tmp_path / "store", transport=FakeRegistry(), clock=InstantClock())
    await store.open()
    yield store
    await store.close()


async def stream(content: bytes, size: int = 7000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def docker_archive(image: MadeImage, *tags: str, layers: list[str] | None = None, **extra: Any) -> bytes:
    names = [f"{hex_of(digest_of(blob))}/layer.tar" for blob in image.blobs]
    manifest = [{"Config": "c.json", "RepoTags": list(tags) or None, "Layers": layers or names, **extra}]
    return make_tar(
        *(member(name, blob) for name, blob in zip(names, image.blobs, strict=True)),
        member("c.json", image.config),
        member("manifest.json", json.dumps(manifest).encode()),
    )


def oci_archive(image: MadeImage, name: str) -> bytes:
    manifest = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": len(image.manifest)}
    manifest |= {"digest": digest_of(image.manifest), "annotations": {"io.containerd.image.name": name}}
    return make_tar(
        member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        member("index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()),
        *(
            member(f"blobs/sha256/{hex_of(digest_of(blob))}", blob)
            for blob in (image.manifest, image.config, *image.blobs)
        ),
    )


def two_layers(how: str = "none") -> MadeImage:
    return make_image(
        [make_tar(member("a", b"1")), make_tar(member("b", b"2"))], how, ImageConfig(cmd=("x",))
    )


PACKERS = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("packer", PACKERS)
async def test_docker_archive(store: ImageStore, packer: str) -> None:
    made = two_layers()
    told: list[dict[str, Any]] = []
    archive = PACKERS[packer](docker_archive(made, "app:1", "app:2"))
    (image,) = await store.load(stream(archive), told.append)
    assert (image.id, image.repo_tags) == (made.id, ("app:1", "app:2"))
    assert [(path / name).read_bytes() for path, name in zip(image.layers, "ab", strict=True)] == [b"1", b"2"]
    assert [message["stream"] for message in told if "stream" in message] == [
        "Loaded image: app:1\n",
        "Loaded image: app:2\n",
    ]
    assert any(message.get("status") == "Loading layer" for message in told)
    assert os.listdir(store.root / "tmp") == []


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
async def test_oci_layout(store: ImageStore, how: str) -> None:
    made = two_layers(how)
    (image,) = await store.load(stream(oci_archive(made, "docker.io/library/app:1")))
    assert (image.id, image.repo_tags) == (made.id, ("app:1",))


async def test_untagged_image_and_linked_layer(store: ImageStore) -> None:
    tar = make_tar(member("a", b"1"))
    made = make_image([tar], "none")
    archive = make_tar(
        symlink("x/layer.tar", "../y/layer.tar"),
        member("y/layer.tar", tar),
        member("c.json", made.config),
        member("manifest.json", b'[{"Config":"c.json","RepoTags":null,"Layers":["x/layer.tar"]}]'),
    )
    told: list[dict[str, Any]] = []
    (image,) = await store.load(stream(archive), told.append)
    assert image.dangling
    assert told[-1] == {"stream": f"Loaded image ID: {made.id}\n"}


async def test_what_we_build_runs_and_skopeo_reads_it(store: ImageStore, tmp_path: Path) -> None:
    archive = build_image(tmp_path, "team/web:1", {"www/index.html": "hello"})
    (image,) = await store.load(stream(archive.read_bytes(), 1 << 20))
    shown = subprocess.run(
        ["/usr/sbin/chroot", image.layers[0], "/bin/cat", "/www/index.html"], capture_output=True, text=True
    )
    assert shown.stdout == "hello"
    for kind in ("docker-archive", "oci-archive"):
        seen = subprocess.run(
            ["/usr/bin/skopeo", "inspect", "--config", f"{kind}:{archive}"], capture_output=True, text=True
        )
        assert json.loads(seen.stdout)["rootfs"]["diff_ids"] == list(image.diff_ids)


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (b"", "neither"),
        (b"not a tar at all" * 100, "tar"),
        (make_tar(member("x", b"")), "neither manifest.json"),
        (make_tar(member("manifest.json", b"{")), "can't be read"),
        (make_tar(member("manifest.json", b'[{"Config":"../../etc/passwd","Layers":[]}]')), "leaves"),
        (make_tar(member("manifest.json", b'[{"Config":"c","Layers":[]}]')), "has no 'c'"),
        (make_tar(member("manifest.json", b'[{"Config":"a","Layers":[]}]'), symlink("a", "a")), "has no"),
        (make_tar(member("../x", b"")), "leaves"),
        (docker_archive(two_layers(), "app:1", layers=["one"]), "disagree"),
        (docker_archive(two_layers(), "app:1", layers=["one", "two"]), "has no"),
        (docker_archive(two_layers(), "app:1")[:2000], "cut short|middle"),
        (gzip.compress(docker_archive(two_layers(), "app:1"))[:-30], "gzip"),
        (b"BZh91AY&SY", "bzip2"),
    ],
)
async def test_bad_archives_are_refused(store: ImageStore, archive: bytes, words: str) -> None:
    with pytest.raises(InvalidImage, match=words):
        await store.load(stream(archive))
    assert [os.listdir(store.root / name) for name in ("l", "tmp", "configs")] == [[], [], []]


async def test_wrong_layer_is_refused(store: ImageStore) -> None:
    made = two_layers()
    forged = MadeImage(made.manifest, made.config, (made.blobs[0], make_tar(member("b", b"other"))))
    with pytest.raises(DigestMismatch):
        await store.load(stream(docker_archive(forged, "app:1")))
    assert [os.listdir(store.root / name) for name in ("l", "tmp", "configs")] == [[], [], []]


async def test_memory_stays_bounded(store: ImageStore) -> None:
    made = make_image([make_tar(member("big", bytes(64 << 20)))], "none")
    archive = io.BytesIO(docker_archive(made, "big:1"))
    packed = gzip.compress(archive.getvalue(), 1)
    tracemalloc.start()
    try:
        await store.load(stream(packed, 1 << 16))
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
