"""Names, lists, removal and pruning."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.errors import Conflict, InvalidArgument
from tests.fakes.registry import FakeRegistry
from tests.host.images.test_load import docker_archive, stream
from tests.support.instant_clock import InstantClock
from tests.support.layers import make_image, make_tar, member
from worker.images.config import ImageConfig
from worker.images.errors import NoSuchImage
from worker.images.model import Image, ImageUser
from worker.images.store import ImageStore

pytestmark = pytest.mark.host
BASE = make_tar(member("base", b"12345"))


async def opened(root: Path) -> ImageStore:
    store = ImageStore(root, transport=FakeRegistry(), clock=InstantClock())
    await store.open()
    return store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = await opened(tmp_path / "store")
    yield store
    await store.close()


async def add(store: ImageStore, *tags: str, content: bytes = b"x", **config: object) -> Image:
    made = make_image([BASE, make_tar(member("own", content))], "none", ImageConfig(**config))  # type: ignore[arg-type]
    (image,) = await store.load(stream(docker_archive(made, *tags)))
    return image


async def test_found_by_every_name(store: ImageStore) -> None:
    image = await add(store, "app:1", "host:5000/team/app")
    for name in (
        "app:1",
        "docker.io/library/app:1",
        "host:5000/team/app:latest",
        image.id,
        image.id[7:],
        image.id[7:19],
        image.id[:12],
    ):
        assert store.get(name).id == image.id
    for name, shown in (
        ("app", "app:latest"),
        ("nothing:1", "nothing:1"),
        ("sha256:" + "0" * 64, "sha256:0"),
    ):
        with pytest.raises(NoSuchImage, match=f"No such image: {shown}"):
            store.get(name)


async def test_a_name_beats_the_beginning_of_an_id(store: ImageStore) -> None:
    first = await add(store, "one")
    second = await add(store, f"{first.id[7:19]}", content=b"y")
    assert store.get(first.id[7:19]).id == second.id


async def test_everything_survives_a_restart(store: ImageStore, tmp_path: Path) -> None:
    image = await add(store, "app:1", "app:2", labels={"a": "b"})
    again = await opened(tmp_path / "store")
    assert list(again.list()) == [image]
    await again.close()


async def test_tag_and_untag(store: ImageStore) -> None:
    image = await add(store, "app:1")
    await store.tag("app:1", "app:2")
    assert store.get("app:2").repo_tags == ("app:1", "app:2")
    with pytest.raises(InvalidArgument):
        await store.tag("app:1", "x@sha256:" + "0" * 64)
    removal = await store.remove("app:1")
    assert removal.steps == (("Untagged", "app:1"),)
    removal = await store.remove("app:2")
    assert removal.steps[:2] == (("Untagged", "app:2"), ("Deleted", image.id))
    assert removal.reclaimed == 6
    assert list(store.list()) == []
    assert not any((store.root / "l").iterdir())


async def test_shared_layers_outlive_one_image(store: ImageStore) -> None:
    first, second = await add(store, "one"), await add(store, "two", content=b"y")
    assert first.layers[0] == second.layers[0]
    removal = await store.remove("one")
    assert [what for verb, what in removal.steps if verb == "Deleted"] == [first.id, first.diff_ids[1]]
    assert (second.layers[0] / "base").read_bytes() == b"12345"


async def test_by_id_with_names_in_several_repositories(store: ImageStore) -> None:
    image = await add(store, "one:1", "one:2", "two:1")
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        await store.remove(image.id[7:19])
    await store.remove("two:1")
    removal = await store.remove(image.id[7:19])
    assert [verb for verb, _ in removal.steps] == ["Untagged", "Untagged", "Deleted", "Deleted", "Deleted"]


@pytest.mark.parametrize(
    ("by_id", "running", "words"),
    [
        (True, True, "cannot be forced.*running container aaaaaaaaaaaa"),
        (True, False, "must be forced.*stopped container aaaaaaaaaaaa"),
        (False, True, 'must force.*"app:1"|unable to remove repository reference "app:1"'),
        (False, False, 'unable to remove repository reference "app:1"'),
    ],
)
async def test_a_container_keeps_its_image(store: ImageStore, by_id: bool, running: bool, words: str) -> None:
    image = await add(store, "app:1")
    users = [ImageUser("a" * 64, image.id, running)]
    name = image.id if by_id else "app:1"
    with pytest.raises(Conflict, match=words):
        await store.remove(name, users=users)
    if by_id and running:
        with pytest.raises(Conflict, match="cannot be forced"):
            await store.remove(name, users=users, force=True)
        return
    assert (await store.remove(name, users=users, force=True)).steps == (("Untagged", "app:1"),)
    assert store.get(image.id).dangling
    assert image.layers[0].is_dir()


async def test_prune(store: ImageStore) -> None:
    named = await add(store, "named")
    loose = await add(store, content=b"loose")
    used = await add(store, content=b"used")
    users = [ImageUser("c" * 64, used.id, False)]
    assert ("Deleted", loose.id) in (removal := await store.prune(users=users)).steps
    assert removal.reclaimed == 5
    assert {image.id for image in store.list()} == {named.id, used.id}
    await store.prune(users=users, dangling=False)
    assert [image.id for image in store.list()] == [used.id]


async def test_filters_and_order(store: ImageStore) -> None:
    old = await add(store, "host/app:old", created="2020-01-01T00:00:00Z", labels={"a": "1"})
    new = await add(store, "app:new", content=b"n", created="2024-01-01T00:00:00.123456789Z")
    loose = await add(store, content=b"l", created="2022-01-01T00:00:00Z", labels={"a": "2"})

    def ids(**filters: list[str]) -> list[str]:
        return [image.id for image in store.list(filters)]

    assert ids() == [new.id, loose.id, old.id]
    assert ids(dangling=["true"]) == [loose.id]
    assert ids(dangling=["false"]) == [new.id, old.id]
    assert ids(label=["a"]) == [loose.id, old.id]
    assert ids(label=["a=1"]) == [old.id]
    assert ids(reference=["app"]) == [new.id]
    assert ids(reference=["app*"]) == [new.id]
    assert ids(reference=["*/app:o*"]) == [old.id]
    assert ids(before=["app:new"]) == [loose.id, old.id]
    assert ids(since=[old.id]) == [new.id, loose.id]
    assert ids(until=["2021-01-01T00:00:00"]) == [old.id]
    for bad in ({"colour": ["red"]}, {"dangling": ["maybe"]}, {"until": ["soon"]}):
        with pytest.raises(InvalidArgument, match="invalid filter"):
            store.list(bad)
    with pytest.raises(NoSuchImage):
        ids(before=["nothing"])


async def test_most_layers_allowed_fit_one_overlay_mount(store: ImageStore) -> None:
    made = make_image([make_tar(member(f"f{number}", b"")) for number in range(127)], "none")
    (image,) = await store.load(stream(docker_archive(made, "deep")))
    assert len(":".join(image.layer_names)) < 3500
