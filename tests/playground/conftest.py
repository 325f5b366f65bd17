"""One cluster for the tests that leave it as they found it, and one that may be broken and mended."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, docker_cli, playground
from tests.support.images import build_image
from tests.support.registries import LOCKED, OPEN, push_web, start

INSTALL = (
    "these tests drive a cluster with the docker command: install a client, such as Debian's "
    "docker.io (its daemon need not run), and put `docker` on PATH"
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the daemons complained of during a test that failed."""
    report = yield
    if report.failed:
        for value in item.funcargs.values():
            if isinstance(value, Cluster) and (troubles := value.troubles()):
                report.sections.append(("the hosts' daemons", troubles))
    return report


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
    registries = (OPEN, LOCKED)
    devices = [f"--node-generic-resource={each}" for each in ("gpu=one", "gpu=two", "ssd=3")]
    labels = ("--label", "tier=gold")
    with playground(daemon_args=(*labels, *devices), insecure_registries=registries) as cluster:
        cluster.load(archive)
        yield cluster


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """The session's cluster, emptied after each test."""
    session_cluster.mark()
    try:
        yield session_cluster
    finally:
        session_cluster.clear()


@pytest.fixture(scope="session")
def web_image(session_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The reference of nginx's image in a registry that runs in the client namespace."""
    start(session_cluster.playground)
    return push_web(session_cluster.playground, tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def fragile(docker_command: None, archive: Path) -> Iterator[Cluster]:
    """A cluster of its own for a module that takes power and cables away; each test mends what it broke."""
    with playground() as cluster:
        cluster.load(archive)
        yield cluster
