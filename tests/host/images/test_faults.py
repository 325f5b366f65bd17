"""Broken downloads, dishonest registries, full stops: nothing half-made may stay."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.registry import FakeRegistry, FakeResponse, Request
from tests.support.instant_clock import InstantClock
from tests.support.layers import MadeImage, make_image, make_tar, member
from worker.images.auth import RegistryAuth
from worker.images.digest import digest_of
from worker.images.errors import DigestMismatch, InvalidImage, RegistryError, TransportError
from worker.images.store import ImageStore

pytestmark = pytest.mark.host
NAME = "127.0.0.1:5000/app:1"


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def clock() -> InstantClock:
    return InstantClock()


@pytest.fixture
async def store(fake: FakeRegistry, clock: InstantClock, tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = ImageStore(tmp_path / "store", transport=fake, clock=clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def made(fake: FakeRegistry) -> MadeImage:
    image = make_image([make_tar(member(f"f{n}", os.urandom(50_000))) for n in range(3)])
    put(fake, image)
    return image


def put(fake: FakeRegistry, image: MadeImage) -> None:
    for blob in (image.config, *image.blobs):
        fake.put_blob(blob)
    fake.put_manifest("app", "1", image.manifest)


def assert_nothing_left(store: ImageStore) -> None:
    assert list(store.list()) == []
    for directory in ("l", "tmp", "configs"):
        assert os.listdir(store.root / directory) == []


def on_blob(blob: bytes, answer: "object") -> "object":
    def fault(request: Request) -> FakeResponse | None:
        if digest_of(blob) in request.path:
            return answer(request)  # type: ignore[operator,no-any-return]
        return None

    return fault


async def test_a_broken_download_is_resumed(fake: FakeRegistry, store: ImageStore, made: MadeImage) -> None:
    blob = made.blobs[1]

    def cut(request: Request) -> FakeResponse | None:
        return FakeResponse(200, blob[:20_000], breaks=True) if request.count == 1 else None

    fake.fault = on_blob(blob, cut)  # type: ignore[assignment]
    image = await store.pull(NAME)
    assert image.id == made.id
    sent = [request.headers.get("Range") for request in fake.requests if digest_of(blob) in request.path]
    assert sent == [None, "bytes=20000-"]


@pytest.mark.parametrize("breaks", [True, False])
async def test_resuming_where_ranges_are_ignored(
    fake: FakeRegistry, store: ImageStore, made: MadeImage, breaks: bool
) -> None:
    fake.ranges = False
    blob = made.blobs[0]
    fake.fault = on_blob(  # type: ignore[assignment]
        blob, lambda request: FakeResponse(200, blob[:9_000], breaks=breaks) if request.count < 3 else None
    )
    assert (await store.pull(NAME)).id == made.id


async def test_a_resumed_mixture_is_fetched_anew(
    fake: FakeRegistry, store: ImageStore, made: MadeImage
) -> None:
    blob = made.blobs[0]
    fake.fault = on_blob(  # type: ignore[assignment]
        blob,
        lambda request: FakeResponse(200, bytes(9_000), breaks=True) if request.count == 1 else None,
    )
    assert (await store.pull(NAME)).id == made.id


async def test_overload_is_waited_out(
    fake: FakeRegistry, store: ImageStore, made: MadeImage, clock: InstantClock
) -> None:
    fake.fault = lambda request: (
        FakeResponse(503)
        if request.count < 3
        else FakeResponse(429, b"", {"Retry-After": "7"})
        if request.count == 3
        else None
    )
    assert (await store.pull(NAME)).id == made.id
    assert max(clock.slept) == 7_000_000_000
    assert all(interval > 0 for interval in clock.slept)


async def test_lasting_failure_is_told(fake: FakeRegistry, store: ImageStore, made: MadeImage) -> None:
    blob = made.blobs[2]
    fake.fault = on_blob(blob, lambda _request: FakeResponse(503))  # type: ignore[assignment]
    with pytest.raises(TransportError, match="status 503"):
        await store.pull(NAME)
    assert fake.count(digest_of(blob)) == 5
    assert_nothing_left(store)
    fake.fault = None
    assert (await store.pull(NAME)).id == made.id


@pytest.mark.parametrize("part", ["layer", "config", "longer"])
async def test_wrong_content_is_refused(
    fake: FakeRegistry, store: ImageStore, made: MadeImage, part: str
) -> None:
    victim = made.config if part == "config" else made.blobs[1]
    false = victim + b"more" if part == "longer" else bytes(len(victim))
    fake.fault = on_blob(victim, lambda _request: FakeResponse(200, false))  # type: ignore[assignment]
    with pytest.raises(DigestMismatch, match="does not match its digest"):
        await store.pull(NAME)
    assert_nothing_left(store)


async def test_wrong_manifest_for_a_digest_is_refused(
    fake: FakeRegistry, store: ImageStore, made: MadeImage
) -> None:
    fake.manifests["app", "sha256:" + "0" * 64] = fake.manifests["app", "1"]
    with pytest.raises(DigestMismatch):
        await store.pull("127.0.0.1:5000/app@sha256:" + "0" * 64)
    assert_nothing_left(store)


async def test_wrong_diff_id_is_refused(fake: FakeRegistry, store: ImageStore) -> None:
    honest, other = (make_image([make_tar(member("f", content))]) for content in (b"a", b"b"))
    forged = honest.manifest.replace(digest_of(honest.blobs[0]).encode(), digest_of(other.blobs[0]).encode())
    forged = forged.replace(b'"size":%d}]' % len(honest.blobs[0]), b'"size":%d}]' % len(other.blobs[0]))
    put(fake, other)
    put(fake, MadeImage(forged, honest.config, other.blobs))
    with pytest.raises(DigestMismatch):
        await store.pull(NAME)
    assert_nothing_left(store)


async def test_evil_layer_leaves_nothing(fake: FakeRegistry, store: ImageStore) -> None:
    put(fake, make_image([make_tar(member("fine", b"x")), make_tar(member("../../evil", b"x"))]))
    with pytest.raises(InvalidImage, match="leaves"):
        await store.pull(NAME)
    assert_nothing_left(store)


async def test_oversized_manifest_is_refused(fake: FakeRegistry, store: ImageStore) -> None:
    fake.put_manifest("app", "1", b" " * (5 << 20))
    with pytest.raises(RegistryError, match="larger than"):
        await store.pull(NAME)


async def test_credentials_do_not_follow_a_redirect(
    fake: FakeRegistry, store: ImageStore, made: MadeImage
) -> None:
    fake.login = ("alice", "secret")
    seen: list[Request] = []

    class Elsewhere(FakeRegistry):
        pass

    def redirect(request: Request) -> FakeResponse | None:
        if "/blobs/" in request.path and "Authorization" in request.headers:
            return FakeResponse(307, b"", {"Location": "http://storage.test" + request.path})
        return None

    storage = Elsewhere(host="storage.test", blobs=fake.blobs)
    storage.fault = lambda request: seen.append(request)
    plain = fake.request

    def route(method: str, url: str, **options: object) -> object:
        return (storage.request if "storage.test" in url else plain)(method, url, **options)  # type: ignore[arg-type]

    fake.request = route  # type: ignore[assignment,method-assign]
    fake.fault = redirect
    assert (await store.pull(NAME, auth=RegistryAuth("alice", "secret"))).id == made.id
    assert len(seen) == 4
    assert not any("Authorization" in request.headers for request in seen)


async def test_cancelled_pull_leaves_nothing(fake: FakeRegistry, store: ImageStore, made: MadeImage) -> None:
    reached = asyncio.Event()
    pull = asyncio.create_task(
        store.pull(
            NAME, progress=lambda message: reached.set() if message["status"] == "Downloading" else None
        )
    )
    await reached.wait()
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert_nothing_left(store)
    assert (await store.pull(NAME)).id == made.id


async def test_one_of_two_pulls_may_leave(fake: FakeRegistry, store: ImageStore, made: MadeImage) -> None:
    reached = asyncio.Event()
    first = asyncio.create_task(
        store.pull(
            NAME, progress=lambda message: reached.set() if message["status"] == "Downloading" else None
        )
    )
    await reached.wait()
    second = asyncio.create_task(store.pull(NAME))
    while fake.count("manifests") < 2:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert (await second).id == made.id


async def test_full_disk_is_told_and_leaves_nothing(
    fake: FakeRegistry, clock: InstantClock, tmp_path: Path
) -> None:
    put(fake, make_image([make_tar(member("f", os.urandom(3 << 20)))]))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=True)
    try:
        store = ImageStore(small, transport=fake, clock=clock)
        await store.open()
        with pytest.raises(OSError, match="No space left"):
            await store.pull(NAME)
        assert_nothing_left(store)
        await store.close()
    finally:
        subprocess.run(["/bin/umount", small], check=True)


PULL_FOREVER = textwrap.dedent(
    """
    import asyncio, os, sys
    from pathlib import Path
    from tests.fakes.registry import FakeRegistry
    from tests.support.instant_clock import InstantClock
    from tests.support.layers import make_image, make_tar, member
    from worker.images.store import ImageStore

    async def main():
        number = 0
        fake = FakeRegistry()
        store = ImageStore(Path(sys.argv[1]), transport=fake, clock=InstantClock())
        await store.open()
        while True:
            number += 1
            files = lambda: [member(f"f{n}", os.urandom(3000)) for n in range(200)]
            made = make_image([make_tar(*files()) for _ in range(3)])
            for blob in (made.config, *made.blobs):
                fake.put_blob(blob)
            fake.put_manifest("app", str(number), made.manifest)
            image = await store.pull(f"{fake.host}/app:{number}")
            print(image.id, flush=True)
            if number % 3 == 0:
                await store.remove(image.id)

    asyncio.run(main())
    """
)


@pytest.mark.parametrize("moment", [1, 2, 4])
async def test_killed_in_the_middle(
    fake: FakeRegistry, clock: InstantClock, tmp_path: Path, moment: int
) -> None:
    root = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", PULL_FOREVER, str(root)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert process.stdout is not None
    done = [process.stdout.readline().strip() for _ in range(moment)]
    while not os.listdir(root / "tmp"):  # strike while something is under way
        await asyncio.sleep(0)
    os.kill(process.pid, signal.SIGKILL)
    done += [line.strip() for line in process.stdout if line.strip()]
    process.stdout.close()
    process.wait()
    store = ImageStore(root, transport=fake, clock=clock)
    await store.open()
    try:
        assert os.listdir(root / "tmp") == []
        images = store.list()
        kept = {image.id for image in images}
        assert {image_id for number, image_id in enumerate(done, 1) if number % 3} <= kept
        for image in images:
            for path in image.layers:
                assert len(os.listdir(path)) == 200
        assert len(os.listdir(root / "l")) == sum(len(image.layers) for image in images)
        assert len(os.listdir(root / "configs")) == len(images)
    finally:
        await store.close()


async def test_damaged_store_forgets_only_what_is_damaged(
    fake: FakeRegistry,
    store: ImageStore,
    clock: InstantClock,
    made: MadeImage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hurt = await store.pull(NAME)
    put(fake, make_image([make_tar(member("g", b"x"))]))
    whole = await store.pull(NAME)
    (hurt.layers[0].parent / "layer.json").write_bytes(b"{")
    again = ImageStore(store.root, transport=fake, clock=clock)
    await again.open()
    assert [image.id for image in again.list()] == [whole.id]
    assert "forgetting a damaged image" in caplog.text
    assert len(os.listdir(store.root / "l")) == 1
    await again.close()
