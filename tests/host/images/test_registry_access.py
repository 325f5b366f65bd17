"""TLS, credentials and mirrors."""

import subprocess
from pathlib import Path

import pytest

from cluster.errors import InvalidArgument
from cluster.seams import SystemClock
from tests.fakes.registry import FakeRegistry
from tests.host.images.registries import HTPASSWD, real_registry
from tests.support.images import build_image
from tests.support.instant_clock import InstantClock
from tests.support.layers import make_image, make_tar, member
from worker.images.auth import RegistryAuth
from worker.images.endpoints import Endpoints
from worker.images.errors import AccessDenied, RegistryError, RegistryUnauthorized, TLSFailure
from worker.images.manifest import DOCKER_MANIFEST
from worker.images.push import push_archive
from worker.images.store import ImageStore
from worker.images.transport import HttpTransport

pytestmark = pytest.mark.host
ALICE = RegistryAuth(username="alice", password="secret")


async def test_push_and_pull_with_basic_auth(tmp_path: Path) -> None:
    archive = build_image(tmp_path, "web:1", {"www/index.html": "hello"})
    async with real_registry(tmp_path / "registry", htpasswd=HTPASSWD) as registry:
        name = f"{registry.host}/web:1"
        transport = HttpTransport("shoal-test")
        digest = await push_archive(archive, name, transport=transport, clock=SystemClock(), auth=ALICE)
        store = ImageStore(tmp_path / "store", transport=transport, clock=SystemClock())
        await store.open()
        try:
            with pytest.raises(RegistryUnauthorized, match="docker login"):
                await store.pull(name)
            with pytest.raises(RegistryUnauthorized, match="authentication required"):
                await store.pull(name, auth=RegistryAuth(username="alice", password="wrong"))
            with pytest.raises(RegistryUnauthorized, match="authentication required"):
                await store.login(registry.host, RegistryAuth(username="alice", password="wrong"))
            await store.login(registry.host, ALICE)
            image = await store.pull(name, auth=ALICE)
            assert image.repo_digests == (f"{registry.host}/web@{digest}",)
            assert (image.layers[0] / "www/index.html").read_text() == "hello"
        finally:
            await store.close()


async def test_tls_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    archive = build_image(tmp_path, "web:1")
    async with real_registry(tmp_path / "registry", tls=True) as registry:
        trusted = tmp_path / "certs" / registry.host
        trusted.mkdir(parents=True)
        assert registry.authority is not None
        (trusted / "ca.crt").write_bytes(registry.authority.read_bytes())
        url = f"https://{registry.host}/v2/"
        for transport, verify in (
            (HttpTransport("shoal-test", tmp_path / "certs"), True),
            (HttpTransport("shoal-test"), False),
        ):
            async with transport.request("GET", url, headers={}, verify=verify) as response:
                assert response.status == 200
            await transport.close()
        transport = HttpTransport("shoal-test")
        try:
            with pytest.raises(TLSFailure, match="no trusted TLS"):
                async with transport.request("GET", url, headers={}):
                    pass
            # 127.0.0.0/8 is insecure by default: HTTPS without verification comes first.
            await push_archive(archive, f"{registry.host}/web:1", transport=transport, clock=SystemClock())
        finally:
            await transport.close()


async def test_what_skopeo_pushes_in_dockers_format(tmp_path: Path) -> None:
    archive = build_image(tmp_path, "web:1", {"www/index.html": "hello"})
    async with real_registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/web:1"
        subprocess.run(
            [
                "/usr/bin/skopeo",
                "copy",
                "-q",
                "--format",
                "v2s2",
                "--dest-tls-verify=false",
                f"docker-archive:{archive}",
                f"docker://{name}",
            ],
            check=True,
        )
        store = ImageStore(tmp_path / "store", transport=HttpTransport("shoal-test"), clock=SystemClock())
        await store.open()
        try:
            assert (await store.resolve(name)).descriptor.media_type == DOCKER_MANIFEST
            image = await store.pull(name)
            assert (image.layers[0] / "www/index.html").read_text() == "hello"
        finally:
            await store.close()


def fake_with_image(**options: object) -> FakeRegistry:
    fake = FakeRegistry(**options)  # type: ignore[arg-type]
    made = make_image([make_tar(member("f", b"x"))])
    for blob in (made.config, *made.blobs):
        fake.put_blob(blob)
    fake.put_manifest("app", "1", made.manifest)
    return fake


async def test_token_auth(tmp_path: Path) -> None:
    fake = fake_with_image(token_auth=True, login=("alice", "secret"))
    store = ImageStore(tmp_path / "s", transport=fake, clock=InstantClock())
    await store.open()
    with pytest.raises(RegistryUnauthorized, match="authentication required"):
        await store.pull(f"{fake.host}/app:1")
    with pytest.raises(RegistryUnauthorized, match="incorrect username or password"):
        await store.pull(f"{fake.host}/app:1", auth=RegistryAuth("alice", "wrong"))
    await store.pull(f"{fake.host}/app:1", auth=RegistryAuth("alice", "secret"))
    (token,) = [request for request in fake.requests if request.path == "/token"][-1:]
    assert "scope=repository%3Aapp%3Apull" in token.url
    await store.close()


async def test_anonymous_token_that_grants_nothing_reads_like_docker(tmp_path: Path) -> None:
    fake = fake_with_image(token_auth=True)
    store = ImageStore(tmp_path / "s", transport=fake, clock=InstantClock())
    await store.open()
    await store.pull(f"{fake.host}/app:1")
    fake.fault = lambda request: (
        None
        if request.path == "/token"
        else fake._answer(type(request)(request.method, request.url, {}, request.count))
    )
    with pytest.raises(AccessDenied, match="repository does not exist or may require 'docker login'"):
        await store.pull(f"{fake.host}/secret:1")
    await store.close()


async def test_plain_http_only_where_allowed(tmp_path: Path) -> None:
    fake = fake_with_image(host="registry.test:5000")
    for number, (insecure, works) in enumerate(
        [
            ((), False),
            (("registry.test:5000",), True),
            (("registry.test",), True),
            (("10.0.0.0/8",), True),
            (("192.168.0.0/16",), False),
        ]
    ):

        async def resolver(_domain: str) -> list[str]:
            return ["10.1.2.3"]

        store = ImageStore(
            tmp_path / str(number),
            transport=fake,
            clock=InstantClock(),
            insecure_registries=insecure,
            resolver=resolver,
        )
        await store.open()
        if works:
            await store.pull("registry.test:5000/app:1")
        else:
            with pytest.raises(RegistryError, match="speaks http"):
                await store.pull("registry.test:5000/app:1")
        await store.close()


async def test_mirror_comes_first_and_gets_no_credentials(tmp_path: Path) -> None:
    fake = fake_with_image(host="mirror.test", scheme="https")
    fake.manifests["library/app", "1"] = fake.manifests["app", "1"]
    store = ImageStore(tmp_path / "s", transport=fake, clock=InstantClock(), mirrors=["https://mirror.test"])
    await store.open()
    image = await store.pull("app:1", auth=RegistryAuth("alice", "secret"))
    assert image.repo_tags == ("app:1",)
    assert not any("Authorization" in request.headers for request in fake.requests)
    with pytest.raises(RegistryError, match=r"registry-1\.docker\.io"):
        await store.pull("other:1")
    await store.close()


@pytest.mark.parametrize("entry", ["http://x", "10.0.0.0/99", "host/path", ""])
def test_bad_insecure_registry(entry: str) -> None:
    with pytest.raises(InvalidArgument):
        Endpoints([entry])


@pytest.mark.parametrize("url", ["ftp://x", "mirror", "https://u:p@x", "https://x?q"])
def test_bad_mirror(url: str) -> None:
    with pytest.raises(InvalidArgument):
        Endpoints((), [url])
