"""Fixtures of the network plane's tests on a real kernel."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.network_lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """An underlay to put hosts on."""
    made = Lab(tmp_path)
    try:
        yield made
    finally:
        made.close()
