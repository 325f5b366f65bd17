"""A test of this folder may only say that it covers what it has really asked the docker command to do."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.playground.clients.coverage import claims, used
from tests.support.cluster import Cluster


@pytest.fixture(scope="module", autouse=True)
def asked() -> Iterator[set[tuple[str, str]]]:
    """The subcommands and flags that this module's commands have had."""
    seen: set[tuple[str, str]] = set()
    attempt = Cluster.attempt

    def recorded(self: Cluster, *words: str, **settings: Any) -> object:
        seen.update(used(words))
        return attempt(self, *words, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "attempt", recorded)
        yield seen


@pytest.fixture(autouse=True)
def what_is_covered_was_asked(request: pytest.FixtureRequest, asked: set[tuple[str, str]]) -> Iterator[None]:
    """Fails a test that covers something no command of its module had."""
    yield
    missing = claims(request.function) - asked
    assert not missing, f"said to be covered, but never asked: {sorted(missing)}"
