"""`docker events`: the cluster's, through the docker CLI and docker-py."""

import json
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest

from tests.support.cluster import Cluster

pytestmark = pytest.mark.playground


def test_what_happened_as_the_docker_cli_prints_it(cluster: Cluster) -> None:
    """Written through one manager, read through another."""
    begun = datetime.now(UTC).isoformat()
    id = cluster.create("web", "--replicas", "0")
    cluster.docker("service", "scale", "--detach", "web=1")
    cluster.docker("service", "rm", "web")
    words = ("events", "--since", begun, "--until", datetime.now(UTC).isoformat(), "--filter", "type=service")
    lines = cluster.docker(*words, host="host2").splitlines()
    shown = [line.split(" ", 1)[1] for line in lines]
    assert shown[0].startswith(f"service create {id} (name=web, version=")
    assert any("replicas.new=1" in line and "replicas.old=0" in line for line in shown), shown
    assert shown[-1].startswith(f"service remove {id} (name=web, version=")
    parsed = cluster.docker(*words, "--filter", "event=remove", "--format", "{{json .}}", host="host3")
    assert json.loads(parsed)["Actor"]["ID"] == id


def test_a_stream_that_is_open_tells_at_once(cluster: Cluster) -> None:
    api = cluster.client("host3").api
    with closing(api.events(decode=True, filters={"type": ["secret"], "event": ["create"]})) as events:
        secret = cluster.client("host1").api.create_secret("seen", b"x")
        event = next(events)
    assert (event["Type"], event["Action"], event["Actor"]["ID"]) == ("secret", "create", secret["ID"])
    assert event["scope"] == "swarm"
    assert abs(event["time"] - time.time()) < 60


def test_a_node_s_changes(cluster: Cluster) -> None:
    begun = datetime.now(UTC).isoformat()
    cluster.docker("node", "update", "--availability", "pause", "host3")
    cluster.docker("node", "update", "--availability", "active", "host3")
    until = datetime.now(UTC).isoformat()
    lines = cluster.docker(
        "events", "--since", begun, "--until", until, "--filter", "node=host3"
    ).splitlines()
    changes = [line for line in lines if "availability" in line]
    assert "availability.new=pause, availability.old=active" in changes[0]
    assert "availability.new=active, availability.old=pause" in changes[1]
