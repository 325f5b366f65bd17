"""How engines become a cluster, change their roles, and leave it."""

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, eventually, playground

pytestmark = pytest.mark.playground


@pytest.fixture(scope="module")
def engines() -> Iterator[Cluster]:
    """Four plain engines, in no cluster. The tests below run in order, each on what the one before left."""
    with playground(hosts=4, managers=0) as cluster:
        yield cluster


def state(cluster: Cluster, host: str) -> str:
    """What an engine says of its membership."""
    return cluster.docker(
        "info", "--format", "{{.Swarm.LocalNodeState}}/{{.Swarm.ControlAvailable}}", host=host
    )


def rows(cluster: Cluster, host: str = "host1") -> dict[str, tuple[str, ...]]:
    """`docker node ls`: status, availability and manager status by hostname."""
    form = "{{.Hostname}}|{{.Status}}|{{.Availability}}|{{.ManagerStatus}}"
    listed = [
        row.split("|") for row in cluster.docker("node", "ls", "--format", form, host=host).splitlines()
    ]
    return {name: tuple(rest) for name, *rest in listed}


def token(cluster: Cluster, role: str) -> str:
    """The token that joins as `role`."""
    return cluster.docker("swarm", "join-token", "--quiet", role)


def join(cluster: Cluster, host: str, secret: str) -> str:
    """Join host1's cluster."""
    return cluster.docker("swarm", "join", "--token", secret, f"{cluster.address('host1')}:2377", host=host)


def test_plain_engines_are_in_no_cluster(engines: Cluster) -> None:
    for host in engines.hosts:
        assert state(engines, host) == "inactive/false"
    assert "This node is not a swarm manager" in engines.refused("service", "ls")
    assert "not part of a swarm" in engines.refused("swarm", "leave")
    assert engines.docker("ps", "--quiet") == ""


def test_init_tells_how_to_join(engines: Cluster) -> None:
    said = engines.docker("swarm", "init", "--advertise-addr", engines.address("host1"))
    assert "Swarm initialized: current node" in said
    found = re.search(r"docker swarm join --token (SWMTKN-1-\w{50}-\w{25}) 192\.0\.2\.11:2377", said)
    assert found
    assert found[1] == token(engines, "worker") != token(engines, "manager")
    assert state(engines, "host1") == "active/true"
    assert "already part of a swarm" in engines.refused("swarm", "init")
    assert rows(engines) == {"host1": ("Ready", "Active", "Leader")}


def test_tokens_that_are_wrong_foreign_or_no_tokens_are_refused(engines: Cluster) -> None:
    address = f"{engines.address('host1')}:2377"
    good = token(engines, "worker")

    def refusal(secret: str, to: str = address) -> str:
        return engines.refused("swarm", "join", "--token", secret, to, host="host2")

    prefix, version, digest, secret = good.split("-")
    wrong = "0" * 25 if secret[0] != "0" else "1" * 25
    assert "token" in refusal("-".join((prefix, version, digest, wrong))).lower()
    foreign = engines.docker("swarm", "init", "--advertise-addr", engines.address("host4"), host="host4")
    stranger = re.findall(r"SWMTKN-\S+", foreign)[0]
    assert "fingerprint" in refusal(stranger).lower() or "digest" in refusal(stranger).lower()
    assert "token" in refusal("no-token").lower()
    nobody = refusal(good, "192.0.2.200:2377")
    assert "192.0.2.200:2377" in nobody
    assert state(engines, "host2") == "inactive/false"
    assert set(rows(engines)) == {"host1"}
    assert "--force" in engines.refused("swarm", "leave", host="host4")
    engines.docker("swarm", "leave", "--force", host="host4")
    assert state(engines, "host4") == "inactive/false"


def test_join_as_worker_and_as_manager(engines: Cluster) -> None:
    assert "joined a swarm as a worker" in join(engines, "host2", token(engines, "worker"))
    assert "joined a swarm as a manager" in join(engines, "host3", token(engines, "manager"))
    eventually(
        "all are ready",
        lambda: (
            rows(engines)
            == {
                "host1": ("Ready", "Active", "Leader"),
                "host2": ("Ready", "Active", ""),
                "host3": ("Ready", "Active", "Reachable"),
            }
        ),
    )
    assert state(engines, "host2") == "active/false"
    assert state(engines, "host3") == "active/true"
    assert "This node is not a swarm manager" in engines.refused("node", "ls", host="host2")
    assert "already part of a swarm" in engines.refused(
        "swarm", "join", "--token", token(engines, "worker"), "192.0.2.11:2377", host="host2"
    )
    assert set(rows(engines, "host3")) == {"host1", "host2", "host3"}


def test_a_rotated_token_is_of_no_use(engines: Cluster) -> None:
    old = token(engines, "worker")
    new = engines.docker("swarm", "join-token", "--quiet", "--rotate", "worker")
    assert new == token(engines, "worker") != old
    assert (
        "token" in engines.refused("swarm", "join", "--token", old, "192.0.2.11:2377", host="host4").lower()
    )
    join(engines, "host4", new)
    eventually("it is ready", lambda: rows(engines).get("host4") == ("Ready", "Active", ""))


def test_promote_and_demote(engines: Cluster) -> None:
    assert "promoted to a manager" in engines.docker("node", "promote", "host2")
    eventually("it manages", lambda: rows(engines)["host2"] == ("Ready", "Active", "Reachable"))
    eventually("it says so", lambda: state(engines, "host2") == "active/true")
    assert eventually("it answers", lambda: set(rows(engines, "host2"))) == {
        "host1",
        "host2",
        "host3",
        "host4",
    }
    assert "demoted in the swarm" in engines.docker("node", "demote", "host2")
    eventually("it works", lambda: rows(engines)["host2"] == ("Ready", "Active", ""))
    eventually("it says so", lambda: state(engines, "host2") == "active/false")
    engines.docker("swarm", "update", "--task-history-limit", "3", host="host3")
    info = json.loads(engines.docker("info", "--format", "{{json .Swarm.Cluster.Spec}}"))
    assert info["Orchestration"]["TaskHistoryRetentionLimit"] == 3


def test_a_manager_demoted_and_promoted_at_once_votes_again(engines: Cluster) -> None:
    engines.docker("node", "promote", "host2")
    eventually("it manages", lambda: rows(engines)["host2"][2] == "Reachable")
    for pause in (0.0, 0.1, 0.3):
        engines.docker("node", "demote", "host2")
        time.sleep(pause)  # how far the demotion has come is the point
        # The demotion may write to the node between the command's reading and its writing.
        eventually("promoted", lambda: engines.attempt("node", "promote", "host2").returncode == 0)
        eventually("it manages again", lambda: rows(engines)["host2"][2] == "Reachable")
        eventually("it answers", lambda: engines.attempt("node", "ls", host="host2").returncode == 0)
    engines.docker("node", "demote", "host2")
    eventually("it says so", lambda: state(engines, "host2") == "active/false")


def test_the_leader_can_be_demoted(engines: Cluster) -> None:
    engines.docker("node", "promote", "host2")
    eventually("it manages", lambda: rows(engines)["host2"][2] == "Reachable")
    engines.docker("node", "demote", "host1", host="host3")
    eventually(
        "another leads",
        lambda: "Leader" in {row[2] for name, row in rows(engines, "host3").items() if name != "host1"},
    )
    eventually("it works", lambda: rows(engines, "host3")["host1"] == ("Ready", "Active", ""))
    eventually("it says so", lambda: state(engines, "host1") == "active/false")
    engines.docker("node", "promote", "host1", host="host3")
    eventually("it manages again", lambda: rows(engines, "host3")["host1"][2] == "Reachable")
    eventually("it answers", lambda: engines.attempt("node", "ls", host="host1").returncode == 0)


def test_leave_and_remove(engines: Cluster) -> None:
    assert "is not down and can't be removed" in engines.refused("node", "rm", "host4")
    assert "left the swarm" in engines.docker("swarm", "leave", host="host4")
    assert state(engines, "host4") == "inactive/false"
    eventually("it is down", lambda: rows(engines)["host4"][0] == "Down")
    assert engines.docker("node", "rm", "host4") == "host4"
    assert "host4" not in rows(engines)
    assert "is a cluster manager" in engines.refused("node", "rm", "--force", "host2")
    join(engines, "host4", token(engines, "worker"))  # it may come again, as another node
    eventually("it is ready", lambda: rows(engines).get("host4") == ("Ready", "Active", ""))
    engines.docker("node", "rm", "--force", "host4")
    eventually("it knows that it was removed", lambda: state(engines, "host4") != "active/false")


def test_a_manager_leaves_by_force_only(engines: Cluster) -> None:
    assert "--force" in engines.refused("swarm", "leave", host="host3")
    engines.docker("swarm", "leave", "--force", host="host3")
    assert state(engines, "host3") == "inactive/false"
    eventually("the others know", lambda: rows(engines, "host2")["host3"][0] == "Down")
    engines.create("probe", "--replicas", "0", host="host2")
    assert engines.docker("service", "ls", "--format", "{{.Name}}") == "probe"
