"""The real runtime keeps the promises of the seam, whichever OCI runtime it uses."""

import shutil

import pytest

from tests.host.runtime.conftest import Node
from tests.support.runtime_conformance import RuntimeConformance
from worker.runtime.oci import OCIRuntime

pytestmark = pytest.mark.host


class TestCrun(RuntimeConformance):
    pass


@pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed")
class TestRunc(RuntimeConformance):
    @pytest.fixture
    async def runtime(self, node: Node) -> OCIRuntime:
        return await node.runtime(runtime="runc")
