"""One cluster for all promises that need hosts: a manager on host1, and two workers, logging all they can."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.playground.conftest import archive, docker_command, pytest_runtest_makereport
from tests.support.cluster import Cluster, playground

__all__ = ["archive", "docker_command", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def promising(docker_command: None, archive: Path) -> Iterator[Cluster]:
    """The cluster, as it was left."""
    with playground(hosts=3, managers=1, log_level="debug") as cluster:
        cluster.load(archive)
        yield cluster


@pytest.fixture
def cluster(promising: Cluster) -> Iterator[Cluster]:
    """The cluster: whole and empty before and after each test."""
    promising.wait_ready(1)
    promising.mark()
    yield promising
    promising.wait_ready(1)
    promising.clear()
