from collections.abc import Iterator

import pytest

from tests.fakes.dispatching import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    return Cluster()  # type: ignore[return-value]
