"""Fixtures of the API's tests."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.api.manager import Api, start


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = await start()
    yield api
    await api.client.close()
