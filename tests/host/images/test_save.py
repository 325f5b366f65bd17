"""`docker save`, and that it can be read again."""

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.registry import FakeRegistry
from tests.host.images.test_load import docker_archive, stream
from tests.support.instant_clock import InstantClock
from tests.support.layers import make_image, make_tar, member
from worker.images.errors import NoSuchImage
from worker.images.store import ImageStore

pytestmark = pytest.mark.host
BASE = make_tar(member("base", b"b"))


async def opened(root: Path) -> ImageStore:
    store = ImageStore(root, transport=FakeRegistry(), clock=InstantClock())
    await store.open()
    return store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = await opened(tmp_path / "store")
    yield store
    await store.close()


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
async def test_saved_images_load_as_the_same(store: ImageStore, tmp_path: Path, how: str) -> None:
    for name, content in (("one:1", b"1"), ("two:2", b"2" * 3_000_000)):
        made = make_image([BASE, make_tar(member("own", content))], how)
        await store.load(stream(docker_archive(made, name)))
    archive = b"".join([piece async for piece in store.save(["one:1", "two:2"])])
    other = await opened(tmp_path / "other")
    loaded = await other.load(stream(archive, 1 << 16))
    assert [(image.id, image.repo_tags) for image in loaded] == [
        (store.get("one:1").id, ("one:1",)),
        (store.get("two:2").id, ("two:2",)),
    ]
    await other.close()
    (tmp_path / "saved.tar").write_bytes(archive)
    seen = subprocess.run(
        ["/usr/bin/skopeo", "inspect", "--config", f"docker-archive:{tmp_path / 'saved.tar'}:two:2"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(seen.stdout)["rootfs"]["diff_ids"] == list(store.get("two:2").diff_ids)


async def test_saved_by_id_has_no_name(store: ImageStore, tmp_path: Path) -> None:
    (image,) = await store.load(stream(docker_archive(make_image([BASE]), "one:1")))
    archive = b"".join([piece async for piece in store.save([image.id])])
    other = await opened(tmp_path / "other")
    (loaded,) = await other.load(stream(archive))
    assert (loaded.id, loaded.repo_tags) == (image.id, ())
    await other.close()


async def test_saving_what_is_not_there(store: ImageStore) -> None:
    with pytest.raises(NoSuchImage):
        async for _piece in store.save(["nothing"]):
            pass


async def test_an_image_removed_while_it_is_saved_is_saved_whole(store: ImageStore, tmp_path: Path) -> None:
    made = make_image([BASE, make_tar(member("own", b"x" * 5_000_000))])
    await store.load(stream(docker_archive(made, "one:1")))
    pieces = store.save(["one:1"])
    archive = await anext(pieces)
    await store.remove("one:1")
    archive += b"".join([piece async for piece in pieces])
    other = await opened(tmp_path / "other")
    assert [image.id for image in await other.load(stream(archive))] == [made.id]
    await other.close()
    assert not any((store.root / "l").iterdir())
