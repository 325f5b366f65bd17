"""`docker swarm` and the commands for nodes, with every flag: two hosts are made a swarm, changed, and left.

The tests run in order, each on what the one before left.
"""

import re
from collections.abc import Iterator

import pytest

from tests.playground.clients.coverage import covers
from tests.support.cluster import Cluster, eventually, playground

pytestmark = pytest.mark.playground

NS = 1_000_000_000
HOUR = 3600 * NS


@pytest.fixture(scope="module")
def engines(docker_command: None) -> Iterator[Cluster]:
    """Two engines in no swarm."""
    with playground(hosts=2, managers=0) as cluster:
        yield cluster


def state(cluster: Cluster, host: str) -> str:
    """What a host says of itself and its swarm."""
    return cluster.docker("info", "--format", "{{.Swarm.LocalNodeState}}", host=host)


@covers(
    "swarm init",
    *("--advertise-addr", "--listen-addr", "--data-path-addr", "--data-path-port", "--availability"),
    *("--autolock", "--cert-expiry", "--dispatcher-heartbeat", "--max-snapshots", "--snapshot-interval"),
    *("--task-history-limit", "--default-addr-pool", "--default-addr-pool-mask-length"),
)
@covers("swarm unlock-key", "--quiet", "--rotate")
def test_init(engines: Cluster) -> None:
    address = engines.address("host1")
    said = engines.docker(
        *("swarm", "init", "--advertise-addr", "eth0:2378", "--listen-addr", "0.0.0.0:2378"),
        *("--data-path-addr", address, "--data-path-port", "4790", "--availability", "drain", "--autolock"),
        *("--cert-expiry", "48h", "--dispatcher-heartbeat", "3s", "--max-snapshots", "2"),
        *("--snapshot-interval", "5000", "--task-history-limit", "3"),
        *("--default-addr-pool", "10.77.0.0/16", "--default-addr-pool-mask-length", "26"),
    )
    assert f"{address}:2378" in said
    key = re.search(r"SWMKEY-1-\S+", said)
    assert key is not None
    assert engines.docker("swarm", "unlock-key", "--quiet") == key.group()
    rotated = engines.docker("swarm", "unlock-key", "--quiet", "--rotate")
    assert rotated != key.group()
    spec = swarm(engines)["Spec"]
    assert spec["CAConfig"]["NodeCertExpiry"] == 48 * HOUR
    assert spec["Dispatcher"]["HeartbeatPeriod"] == 3 * NS
    assert (spec["Raft"]["KeepOldSnapshots"], spec["Raft"]["SnapshotInterval"]) == (2, 5000)
    assert spec["Orchestration"]["TaskHistoryRetentionLimit"] == 3
    assert spec["EncryptionConfig"]["AutoLockManagers"] is True
    told = swarm(engines)
    assert (told["DefaultAddrPool"], told["SubnetSize"], told["DataPathPort"]) == (["10.77.0.0/16"], 26, 4790)
    assert engines.inspect("node", "self")["Spec"]["Availability"] == "drain"
    engines.docker("network", "create", "--driver", "overlay", "pooled")
    subnet = engines.inspect("network", "pooled")["IPAM"]["Config"][0]["Subnet"]
    assert re.fullmatch(r"10\.77\.\d+\.\d+/26", subnet)
    engines.docker("network", "rm", "pooled")


def swarm(cluster: Cluster) -> dict[str, object]:
    """GET /swarm."""
    status, found = cluster.curl("host1", "GET", "/swarm")
    assert status == 200, found
    return found


@covers("swarm join-token", "--quiet", "--rotate")
@covers("swarm join", "--token", "--advertise-addr", "--listen-addr", "--data-path-addr", "--availability")
def test_join(engines: Cluster) -> None:
    old = engines.docker("swarm", "join-token", "--quiet", "worker")
    token = engines.docker("swarm", "join-token", "--quiet", "--rotate", "worker")
    assert token != old
    words = (
        *("swarm", "join", "--advertise-addr", "eth0:2379", "--listen-addr", "0.0.0.0:2379"),
        *("--data-path-addr", "eth0", "--availability", "pause"),
    )
    manager = f"{engines.address('host1')}:2378"
    assert engines.refused(*words, "--token", old, manager, host="host2")
    engines.docker(*words, "--token", token, manager, host="host2")
    node = eventually("it is listed", lambda: engines.nodes().get("host2"))
    assert (node["Spec"]["Role"], node["Spec"]["Availability"]) == ("worker", "pause")
    assert node["Status"]["Addr"] == engines.address("host2")
    assert state(engines, "host2") == "active"
    engines.wait_ready(1)


@covers("node update", "--availability", "--label-add", "--label-rm", "--role")
@covers("node promote")
@covers("node demote")
def test_nodes(engines: Cluster) -> None:
    engines.docker(
        "node", "update", "--availability", "active", "--label-add", "a=1", "--label-add", "b=2", "host2"
    )
    spec = engines.nodes()["host2"]["Spec"]
    assert (spec["Availability"], spec["Labels"]) == ("active", {"a": "1", "b": "2"})
    engines.docker("node", "update", "--label-rm", "a", "host2")
    assert engines.nodes()["host2"]["Spec"]["Labels"] == {"b": "2"}
    for up, down in (
        (("promote",), ("demote",)),
        (("update", "--role", "manager"), ("update", "--role", "worker")),
    ):
        engines.docker("node", *up, "host2")
        eventually("host2 is a manager", lambda: reachability(engines) == "reachable")
        eventually("it answers", lambda: not engines.attempt("node", "ls", host="host2").returncode)
        engines.docker("node", *down, "host2")
        eventually("host2 is a worker", lambda: "ManagerStatus" not in engines.nodes()["host2"])
        eventually("it knows", lambda: not controls(engines, "host2"))


def reachability(cluster: Cluster) -> str:
    """What is said of host2 as a manager."""
    return str(cluster.nodes()["host2"].get("ManagerStatus", {}).get("Reachability"))


def controls(cluster: Cluster, host: str) -> bool:
    """Whether a host is a manager, as it says itself."""
    return cluster.docker("info", "--format", "{{.Swarm.ControlAvailable}}", host=host) == "true"


@covers(
    "swarm update",
    *("--autolock", "--cert-expiry", "--dispatcher-heartbeat", "--max-snapshots"),
    *("--snapshot-interval", "--task-history-limit"),
)
def test_update(engines: Cluster) -> None:
    engines.docker(
        *("swarm", "update", "--autolock=false", "--cert-expiry", "72h", "--dispatcher-heartbeat", "2s"),
        *("--max-snapshots", "1", "--snapshot-interval", "6000", "--task-history-limit", "2"),
    )
    spec = swarm(engines)["Spec"]
    assert spec["CAConfig"]["NodeCertExpiry"] == 72 * HOUR
    assert spec["Dispatcher"]["HeartbeatPeriod"] == 2 * NS
    assert (spec["Raft"]["KeepOldSnapshots"], spec["Raft"]["SnapshotInterval"]) == (1, 6000)
    assert spec["Orchestration"]["TaskHistoryRetentionLimit"] == 2
    assert spec["EncryptionConfig"]["AutoLockManagers"] is False
    assert engines.refused("swarm", "unlock") == "Error: swarm is not locked"


@covers("swarm ca", "--rotate", "--detach", "--quiet", "--cert-expiry")
def test_certificates(engines: Cluster) -> None:
    """A new root that all nodes trust, then all are issued by; both are still there afterwards."""
    old = engines.docker("swarm", "ca")
    assert engines.docker("swarm", "ca", "--rotate", "--quiet", "--cert-expiry", "96h") == ""
    new = engines.docker("swarm", "ca")
    assert "BEGIN CERTIFICATE" in new
    assert new != old
    assert swarm(engines)["Spec"]["CAConfig"]["NodeCertExpiry"] == 96 * HOUR
    assert engines.docker("swarm", "ca", "--rotate", "--detach") == ""
    eventually("the root is another", lambda: engines.docker("swarm", "ca") not in (old, new))
    eventually("it is done", lambda: not swarm(engines)["RootRotationInProgress"])
    assert {node["Status"]["State"] for node in engines.nodes().values()} == {"ready"}


@covers("node rm", "--force")
@covers("swarm leave")
def test_leave(engines: Cluster) -> None:
    assert "is not down" in engines.refused("node", "rm", "host2")
    engines.docker("node", "rm", "--force", "host2")
    assert set(engines.nodes()) == {"host1"}
    eventually("it has heard", lambda: state(engines, "host2") == "inactive")
    token = engines.docker("swarm", "join-token", "--quiet", "worker")
    engines.docker("swarm", "join", "--token", token, f"{engines.address('host1')}:2378", host="host2")
    engines.wait_ready(1)
    assert engines.docker("swarm", "leave", host="host2") == "Node left the swarm."
    eventually("it is down", lambda: engines.nodes()["host2"]["Status"]["State"] == "down")
    engines.docker("node", "rm", engines.nodes()["host2"]["ID"])
    assert "--force" in engines.refused("swarm", "leave")
    assert state(engines, "host1") == "active"


@covers("swarm init", "--force-new-cluster")
@covers("swarm leave", "--force")
def test_force_new_cluster(engines: Cluster) -> None:
    id = engines.inspect("node", "self")["ID"]
    engines.docker("config", "create", "kept", "-", stdin="x")
    engines.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", "eth0:2378")
    assert engines.inspect("node", "self")["ID"] == id
    assert engines.docker("config", "ls", "--format", "{{.Name}}") == "kept"
    engines.docker("swarm", "leave", "--force")
    assert state(engines, "host1") == "inactive"
