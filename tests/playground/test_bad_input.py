"""What no sane client sends, to a real node: shoald's own endpoints, and two managers at once."""

import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.cluster import Cluster

pytestmark = pytest.mark.playground

NOT_JSON = ["{", "[]", "1", '"x"', "NaN", '{"Name": 3}{', "[" * 20_000, '{"Labels":' * 5000]
"""Nothing here may be taken for a body; `\\xff` and the like can't be given to curl as an argument."""
OF_THE_NODE = [
    "/swarm/init",
    "/swarm/join",
    "/swarm/unlock",
    "/volumes/create",
    "/networks/create",
    "/networks/bridge/connect",
    "/networks/bridge/disconnect",
    "/auth",
]
NO_TASKS = {"Replicated": {"Replicas": 0}}
OF_THE_CLUSTER = ["/services/create", "/secrets/create", "/configs/create"]


def send(cluster: Cluster, host: str, path: str, body: str, content_type: str) -> tuple[int, Any]:
    """POST a body as it is."""
    socket = str(cluster.playground.host(host).socket)
    command = ["curl", "-sS", "-m", "20", "-X", "POST", "-w", "\n%{http_code}", "--unix-socket", socket]
    command += ["-H", f"Content-Type: {content_type}", "--data-binary", "@-", f"http://docker{path}"]
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
    content, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(content)


def test_bodies_that_are_none(cluster: Cluster) -> None:
    for path in (*OF_THE_NODE, *OF_THE_CLUSTER):
        for body in NOT_JSON:
            for content_type in ("application/json", "text/plain"):
                status, answer = send(cluster, "host2", path, body, content_type)
                assert (status // 100, list(answer)) == (4, ["message"]), (path, body[:20], status, answer)
    assert cluster.docker("node", "ls", "--quiet", host="host2").count("\n") == 2


def all_at_once(calls: list[Callable[[], tuple[int, Any]]]) -> list[int]:
    """The statuses, ascending."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return sorted(pool.map(lambda call: call()[0], calls))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("services", {"TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}, "Mode": NO_TASKS}),
        ("secrets", {"Data": "eA=="}),
        ("configs", {"Data": "eA=="}),
        ("networks", {"Driver": "overlay"}),
    ],
)
def test_one_name_from_all_managers_at_once(cluster: Cluster, kind: str, body: dict[str, Any]) -> None:
    """One gets it, the others are told that it is taken; nothing is there twice."""
    sent = {"Name": "contested", **body}

    def create(host: str) -> tuple[int, Any]:
        return cluster.curl(host, "POST", f"/{kind}/create", sent)

    calls = [lambda host=host: create(host) for host in cluster.hosts * 2]
    assert all_at_once(calls) == [201, *[409] * (len(calls) - 1)]
    for host in cluster.hosts:
        listed = cluster.curl(host, "GET", f"/{kind}")[1]
        names = [each["Spec"]["Name"] if "Spec" in each else each["Name"] for each in listed]
        assert names.count("contested") == 1


def test_one_version_from_all_managers_at_once(cluster: Cluster) -> None:
    """Updates of what was read at the same version: one is done, the others are out of sequence."""
    cluster.curl("host1", "POST", "/secrets/create", {"Name": "versions", "Data": "eA=="})
    index = cluster.inspect("secret", "versions")["Version"]["Index"]

    def relabel(host: str) -> tuple[int, Any]:
        body = {"Name": "versions", "Labels": {"by": host}}
        return cluster.curl(host, "POST", f"/secrets/versions/update?version={index}", body)

    calls = [lambda host=host: relabel(host) for host in cluster.hosts]
    assert all_at_once(calls) == [200, *[400] * (len(calls) - 1)]
