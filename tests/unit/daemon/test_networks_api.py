"""Which networks a node finds for whom."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from cluster.errors import NotFound
from netplane.errors import NetworkNotFound
from shoal.daemon.networks_api import NetworksAPI
from tests.fakes.clock import ManualClock


def node() -> NetworksAPI:
    def network(name: str) -> Any:
        if name != "br6":
            raise NetworkNotFound(name)
        return SimpleNamespace(id="br6id", name="br6")

    engine: Any = SimpleNamespace(network=SimpleNamespace(network=network), cluster_networks=dict)
    proxy: Any = SimpleNamespace(attached=False)
    members: Any = None
    return NetworksAPI(engine, proxy, members, ManualClock())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("br6", "The network br6 cannot be used with services. Only networks scoped to the swarm"),
        ("br7", "network br7 not found$"),
    ],
)
async def test_a_network_of_the_node_is_none_for_services(name: str, words: str) -> None:
    """docker looks up the networks of `service create` by this call."""
    request = make_mocked_request("GET", f"/networks/{name}?scope=swarm", match_info={"id": name})
    with pytest.raises(NotFound, match=words) as refused:
        await node().inspect(request)
    assert str(refused.value).startswith(f"network {name} not found")
