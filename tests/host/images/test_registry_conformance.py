"""One suite for every registry: docker-registry, and the fake that other tests rely on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from tests.fakes.registry import FakeRegistry
from tests.host.images.registries import real_registry, upload, upload_manifest
from tests.support.instant_clock import InstantClock
from tests.support.layers import MadeImage, make_image, make_tar, member
from worker.images.config import ImageConfig
from worker.images.digest import digest_of
from worker.images.endpoints import Endpoint
from worker.images.errors import ManifestUnknown
from worker.images.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, host_platform
from worker.images.reference import Reference
from worker.images.registry import RegistryClient
from worker.images.store import ImageStore
from worker.images.transport import HttpTransport, RegistryTransport

pytestmark = pytest.mark.host


@dataclass
class Source:
    """A registry under test."""

    host: str
    transport: RegistryTransport
    fake: FakeRegistry | None = None

    async def put(self, name: str, tag: str, image: MadeImage) -> str:
        if self.fake is None:
            return await upload(self.host, name, tag, image)
        for blob in (image.config, *image.blobs):
            self.fake.put_blob(blob)
        return self.fake.put_manifest(name, tag, image.manifest)

    async def put_index(self, name: str, tag: str, content: bytes) -> str:
        if self.fake is None:
            return await upload_manifest(self.host, name, tag, content, OCI_INDEX)
        return self.fake.put_manifest(name, tag, content, OCI_INDEX)


@pytest.fixture(params=["fake", "docker-registry"])
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Source]:
    if request.param == "fake":
        fake = FakeRegistry()
        yield Source(fake.host, fake, fake)
        return
    async with real_registry(tmp_path / "registry") as registry:
        yield Source(registry.host, HttpTransport("shoal-test"))


@pytest.fixture
async def store(source: Source, tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = ImageStore(tmp_path / "store", transport=source.transport, clock=InstantClock())
    await store.open()
    yield store
    await store.close()


def layers(*contents: bytes) -> list[bytes]:
    return [make_tar(member(f"f{number}", content)) for number, content in enumerate(contents)]


@pytest.mark.parametrize("how", ["gzip", "zstd", "none"])
async def test_pull_tells_what_it_does(source: Source, store: ImageStore, how: str) -> None:
    made = make_image(layers(b"one", b"two"), how, ImageConfig(cmd=("run",), env=("A=1",)))
    digest = await source.put("team/app", "v1", made)
    name = f"{source.host}/team/app"
    told: list[dict[str, Any]] = []
    image = await store.pull(f"{name}:v1", progress=told.append)
    assert (image.id, image.config.cmd, image.config.env) == (made.id, ("run",), ("A=1",))
    assert image.repo_tags == (f"{name}:v1",)
    assert image.repo_digests == (f"{name}@{digest}",)
    assert [(path / f"f{n}").read_bytes() for n, path in enumerate(image.layers)] == [b"one", b"two"]
    assert image.size == 6
    assert told[0] == {"status": f"Pulling from {name}", "id": "v1"}
    assert told[-2:] == [
        {"status": f"Digest: {digest}"},
        {"status": f"Status: Downloaded newer image for {name}:v1"},
    ]
    for blob in made.blobs:
        mine = [message for message in told if message.get("id") == digest_of(blob)[7:19]]
        assert list(dict.fromkeys(message["status"] for message in mine)) == [
            "Pulling fs layer",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
            "Extracting",
            "Pull complete",
        ]
        last = [message for message in mine if message["status"] == "Downloading"][-1]
        assert last["progressDetail"] == {"current": len(blob), "total": len(blob)}


async def test_pull_again_and_by_digest(source: Source, store: ImageStore) -> None:
    digest = await source.put("app", "1", make_image(layers(b"x")))
    first = await store.pull(f"{source.host}/app:1")
    told: list[dict[str, Any]] = []
    again = await store.pull(f"{source.host}/app:1", progress=told.append)
    assert again == first
    assert told[-1] == {"status": f"Status: Image is up to date for {source.host}/app:1"}
    assert (await store.pull(f"{source.host}/app@{digest}")).id == first.id
    assert store.get(f"{source.host}/app@{digest}") == first


async def test_layers_are_shared_and_moved_tags_follow(source: Source, store: ImageStore) -> None:
    base = make_tar(member("base", b"b"))
    await source.put("app", "1", make_image([base, *layers(b"old")]))
    old = await store.pull(f"{source.host}/app:1")
    await source.put("app", "1", make_image([base, *layers(b"new")]))
    told: list[dict[str, Any]] = []
    new = await store.pull(f"{source.host}/app:1", progress=told.append)
    assert old.layers[0] == new.layers[0]
    assert [message["status"] for message in told].count("Already exists") == 1
    assert store.get(f"{source.host}/app:1").id == new.id
    assert store.get(old.id).repo_tags == ()


async def test_index_platform_is_chosen(source: Source, store: ImageStore) -> None:
    mine = host_platform().architecture
    made = {
        arch: make_image(layers(arch.encode()), config=ImageConfig(architecture=arch))
        for arch in (mine, "s390x")
    }
    entries = []
    for architecture, image in made.items():
        digest = await source.put("multi", architecture, image)
        entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(image.manifest)}
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    digest = await source.put_index("multi", "latest", msgspec.json.encode(index))
    name = f"{source.host}/multi"
    assert (await store.pull(name)).id == made[mine].id
    assert store.get(name).repo_digests == (f"{name}@{digest}",)
    assert (await store.pull(name, platform="linux/s390x")).id == made["s390x"].id
    with pytest.raises(ManifestUnknown, match=r"no matching manifest for linux/riscv64.*linux/s390x"):
        await store.pull(name, platform="linux/riscv64")
    resolved = await store.resolve(name)
    assert (resolved.descriptor.digest, resolved.descriptor.media_type) == (digest, OCI_INDEX)
    assert {platform.architecture for platform in resolved.platforms} == set(made)


async def test_resolve_a_single_manifest(source: Source, store: ImageStore) -> None:
    made = make_image(layers(b"x"), config=ImageConfig(architecture="arm64", variant="v8"))
    digest = await source.put("app", "1", made)
    resolved = await store.resolve(f"{source.host}/app:1")
    assert (resolved.descriptor.digest, resolved.descriptor.size) == (digest, len(made.manifest))
    assert [str(platform) for platform in resolved.platforms] == ["linux/arm64/v8"]


async def test_what_is_missing_is_said(source: Source, store: ImageStore) -> None:
    await source.put("app", "1", make_image(layers(b"x")))
    with pytest.raises(ManifestUnknown, match=f"manifest for {source.host}/app:2 not found"):
        await store.pull(f"{source.host}/app:2")
    with pytest.raises(ManifestUnknown, match="not found"):
        await store.resolve(f"{source.host}/nothing:1")


async def test_empty_and_repeated_layers(source: Source, store: ImageStore) -> None:
    empty, real = make_tar(), make_tar(member("f", b"x"))
    await source.put("app", "1", make_image([empty, real, empty]))
    image = await store.pull(f"{source.host}/app:1")
    assert len(image.diff_ids) == 3
    assert len(image.layers) == len(set(image.layers)) == 2
    assert not list(image.layers[1].iterdir())


async def test_many_pulls_at_once(source: Source, store: ImageStore) -> None:
    made = make_image(layers(*(bytes([number]) * 5000 for number in range(6))))
    await source.put("app", "1", made)
    images = await asyncio.gather(*(store.pull(f"{source.host}/app:1") for _ in range(5)))
    assert {image.id for image in images} == {made.id}
    if source.fake is not None:
        assert [source.fake.count(digest_of(blob)) for blob in made.blobs] == [1] * 6


async def test_a_blob_can_be_continued(source: Source, tmp_path: Path) -> None:
    made = make_image(layers(bytes(range(256)) * 40), "none")
    await source.put("app", "1", made)
    (blob,) = made.blobs
    reference = Reference.parse(f"{source.host}/app:1")
    endpoint = Endpoint(f"http://{source.host}", verify=False)
    client = RegistryClient(source.transport, reference, endpoint, None, InstantClock(), Random(1))
    descriptor = Descriptor("application/octet-stream", digest_of(blob), len(blob))
    for offset in (0, 1, 5000, len(blob) - 1):
        async with client.blob(descriptor, offset) as (start, response):
            content = b"".join([chunk async for chunk in response.chunks()])
        assert (start, content) == (offset, blob[offset:])
    await source.transport.close()
