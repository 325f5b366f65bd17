"""The real runtime keeps the promises of the seam."""

import pytest

from tests.support.runtime_conformance import RuntimeConformance

pytestmark = pytest.mark.host


class TestOCIRuntime(RuntimeConformance):
    pass
