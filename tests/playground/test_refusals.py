"""Requests that make no sense get a proper 4xx with a message, and change nothing."""

from typing import Any

import pytest

from tests.support.cluster import Cluster

pytestmark = pytest.mark.playground

IMAGE: Any = {"ContainerSpec": {"Image": "busybox"}}
CREATE = "/services/create"


def service(**fields: Any) -> Any:
    """A service that would be good but for the fields given."""
    return {"Name": "x", "TaskTemplate": IMAGE, **fields}


def overlay(subnet: str) -> Any:
    """A network with a subnet."""
    return {"Name": "n", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": subnet}]}}


REFUSALS = [
    ("POST", CREATE, "{not json", 400, "JSON"),
    ("POST", CREATE, [], 400, ""),
    ("POST", CREATE, {"Name": "x"}, 400, ""),
    ("POST", CREATE, service(TaskTemplate={"ContainerSpec": {}}), 400, "image"),
    ("POST", CREATE, service(Mode={"Replicated": {"Replicas": -1}}), 400, ""),
    ("POST", CREATE, service(Mode={"Global": {}, "Replicated": {}}), 400, ""),
    ("POST", CREATE, service(Name="-x"), 400, "DNS name"),
    ("POST", CREATE, service(TaskTemplate={**IMAGE, "Placement": {"Constraints": ["a ~ b"]}}), 400, "a ~ b"),
    ("POST", CREATE, service(EndpointSpec={"Ports": [{"TargetPort": 99999}]}), 400, ""),
    ("GET", "/services/none", None, 404, "none"),
    ("DELETE", "/services/none", None, 404, "none"),
    ("GET", "/tasks/none", None, 404, "none"),
    ("GET", "/nodes/none", None, 404, "none"),
    ("GET", "/networks/nowhere", None, 404, "nowhere"),
    ("GET", "/secrets/none", None, 404, "none"),
    ("GET", "/containers/none/json", None, 404, "No such container: none"),
    ("GET", "/images/none/json", None, 404, "No such image: none"),
    ("GET", "/services?filters=nonsense", None, 400, ""),
    ("GET", "/services?filters=%7B%22colour%22%3A%5B%22blue%22%5D%7D", None, 400, "colour"),
    ("POST", "/networks/create", overlay("300.1.2.0/24"), 400, "300.1.2.0"),
    ("POST", "/networks/create", {"Name": "n", "Driver": "carrier-pigeon"}, 0, "carrier-pigeon"),
    ("POST", "/secrets/create", {"Name": "s", "Data": "not base64!"}, 400, ""),
    ("POST", "/swarm/join", {"RemoteAddrs": ["192.0.2.11:2377"], "JoinToken": "x"}, 503, "already part"),
    ("GET", "/no/such/thing", None, 404, "page not found"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), REFUSALS)
def test_refused(cluster: Cluster, method: str, path: str, body: Any, status: int, words: str) -> None:
    for host in ("host1", "host2"):  # leader and follower say the same
        got, answer = cluster.curl(host, method, path, body)
        assert got == status or (status == 0 and 400 <= got < 500), answer
        assert set(answer) == {"message"}
        assert words in answer["message"]
        assert answer["message"]
    assert cluster.client().api.services() == []
