"""A test of this folder may only say that it covers what it has really asked the docker command to do."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.playground.clients.coverage import claims, used
from tests.support.cluster import Cluster, docker_cli


@pytest.fixture(scope="module", autouse=True)
def asked(request: pytest.FixtureRequest, docker_command: None) -> Iterator[None]:
    """Records what this module's commands were, and fails it if it covers something that none of them had."""
    seen: set[tuple[str, str]] = set()
    attempt = Cluster.attempt

    def recorded(self: Cluster, *words: str, **settings: Any) -> object:
        seen.update(used(words))
        return attempt(self, *words, **settings)

    tests = [item for item in request.session.items if item.path == request.path]
    if any(claims(item.function) for item in tests if isinstance(item, pytest.Function)):
        needs_command(28)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "attempt", recorded)
        yield
    if not request.session.testsfailed:  # else commands may be missing because their tests ended early
        missing = set().union(*(claims(item.function) for item in tests if isinstance(item, pytest.Function)))
        missing -= seen
        assert not missing, f"said to be covered, but never asked: {sorted(missing)}"


def needs_command(major: int) -> None:
    """Skip what an older docker command can't ask for: it has fewer flags."""
    done = subprocess.run([docker_cli() or "docker", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+)", done.stdout)
    if found is None or int(found.group(1)) < major:
        pytest.skip(f"these are flags of the docker command {major}, and this is {done.stdout.strip()}")
