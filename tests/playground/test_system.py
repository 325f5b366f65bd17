"""What an engine says of itself."""

import json

import pytest

from tests.support.cluster import Cluster

pytestmark = pytest.mark.playground


def test_version_negotiates_the_api(cluster: Cluster) -> None:
    version = json.loads(cluster.docker("version", "--format", "{{json .}}"))
    assert version["Server"]["ApiVersion"] == "1.50"
    assert version["Server"]["MinAPIVersion"] == "1.24"
    assert version["Client"]["ApiVersion"] <= "1.50"
    assert version["Server"]["Platform"]["Name"].startswith("Shoal")


@pytest.mark.parametrize("version", ["1.24", "1.40", "1.50"])
def test_every_version_of_the_api_is_served(cluster: Cluster, version: str) -> None:
    status, nodes = cluster.curl("host2", "GET", f"/v{version}/nodes")
    assert (status, len(nodes)) == (200, 3)


def test_a_version_out_of_range_is_refused(cluster: Cluster) -> None:
    status, answer = cluster.curl("host1", "GET", "/v1.23/info")
    assert status == 400
    assert "too old" in answer["message"]
    status, answer = cluster.curl("host1", "GET", "/v1.99/info")
    assert status == 400
    assert "too new" in answer["message"]


def test_info_tells_of_host_and_cluster(cluster: Cluster) -> None:
    for number, host in enumerate(cluster.hosts, start=11):
        info = json.loads(cluster.docker("info", "--format", "{{json .}}", host=host))
        assert info["Name"] == host
        assert info["Labels"] == ["tier=gold"]
        swarm = info["Swarm"]
        assert (swarm["LocalNodeState"], swarm["ControlAvailable"]) == ("active", True)
        assert (swarm["Nodes"], swarm["Managers"]) == (3, 3)
        assert swarm["NodeAddr"] == f"192.0.2.{number}"
        assert len(swarm["RemoteManagers"]) == 3
    text = cluster.docker("info")
    assert "Swarm: active" in text
    assert "WARNING" not in text
