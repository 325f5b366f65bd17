"""One cluster for the tests that leave it as they found it, and one that may be broken and mended."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, docker_cli, playground
from tests.support.images import build_image

INSTALL = (
    "these tests drive a cluster with the docker command: install a client, such as Debian's "
    "docker.io (its daemon need not run), and put `docker` on PATH"
)


@pytest.fixture(scope="session", autouse=True)
def docker_command() -> None:
    """Without a docker command there is nothing to test with."""
    if docker_cli() is None:
        pytest.skip(INSTALL)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image `busybox:latest`, ready for `docker load`."""
    return build_image(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def session_cluster(docker_command: None, archive: Path) -> Iterator[Cluster]:
    """Three hosts, all managers, with the image loaded."""
    with playground(daemon_args=("--label", "tier=gold")) as cluster:
        cluster.load(archive)
        yield cluster


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """The session's cluster, emptied after each test."""
    try:
        yield session_cluster
    finally:
        session_cluster.clear()


@pytest.fixture(scope="module")
def fragile(docker_command: None, archive: Path) -> Iterator[Cluster]:
    """A cluster of its own for a module that takes power and cables away; each test mends what it broke."""
    with playground() as cluster:
        cluster.load(archive)
        yield cluster
