"""Autolock with the docker command: a restarted manager stays locked until someone says the unlock key."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, eventually, playground

pytestmark = pytest.mark.playground

LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
    '"docker swarm unlock" to unlock it.'
)
SECRET = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def engines(archive: Path) -> Iterator[Cluster]:
    """Four plain engines. The tests below run in order, each on what the one before left."""
    with playground(hosts=4, managers=0) as cluster:
        cluster.load(archive)
        yield cluster


def state(cluster: Cluster, host: str = "host1") -> str:
    return cluster.docker("info", "--format", "{{.Swarm.LocalNodeState}}", host=host)


def unlock_key(cluster: Cluster, host: str = "host1") -> str:
    return cluster.docker("swarm", "unlock-key", "--quiet", host=host)


def tls_key(cluster: Cluster, host: str) -> str:
    return (cluster.playground.host(host).data / "swarm/certificates/node.key").read_text()


def keyring(cluster: Cluster, host: str) -> str:
    return (cluster.playground.host(host).data / "swarm/raft/keyring").read_text()


def locked_on_disk(cluster: Cluster, host: str) -> bool:
    return "ENCRYPTED" in tls_key(cluster, host) and '"kek":""' in keyring(cluster, host)


def join(cluster: Cluster, host: str, role: str) -> None:
    secret = cluster.docker("swarm", "join-token", "--quiet", role)
    cluster.docker("swarm", "join", "--token", secret, f"{cluster.address('host1')}:2377", host=host)


def restart(cluster: Cluster, host: str) -> None:
    """Restart the daemon; the manager with it."""
    cluster.playground.restart_daemon(host)


def files_with(cluster: Cluster, host: str, words: list[str]) -> list[str]:
    """The files under a host's swarm directory that hold any of these words."""
    found = []
    for path in (cluster.playground.host(host).data / "swarm").rglob("*"):
        if path.is_file() and any(word.encode() in path.read_bytes() for word in words):
            found.append(str(path))
    return found


def test_init_prints_the_key(engines: Cluster) -> None:
    said = engines.docker("swarm", "init", "--autolock", "--advertise-addr", engines.address("host1"))
    found = re.search(r"SWMKEY-1-[A-Za-z0-9+/]{43}", said)
    assert found
    assert unlock_key(engines) == found[0]
    assert locked_on_disk(engines, "host1")
    assert engines.docker("info", "--format", "{{.Swarm.Cluster.Spec.EncryptionConfig}}") == "{true}"
    assert "swarm is not locked" in engines.refused("swarm", "unlock", stdin=found[0])


def test_managers_that_join_or_are_promoted_lock_too(engines: Cluster) -> None:
    join(engines, "host2", "manager")
    join(engines, "host3", "worker")
    assert locked_on_disk(engines, "host2")
    assert "ENCRYPTED" not in tls_key(engines, "host3")
    eventually("host3 is ready", lambda: _ready(engines, "host3"))
    engines.docker("node", "promote", "host3")
    eventually("host3 manages", lambda: _manages(engines, "host3"))
    eventually("host3 is locked on disk", lambda: locked_on_disk(engines, "host3"))
    assert unlock_key(engines) == unlock_key(engines, "host2") == unlock_key(engines, "host3")


def _manages(cluster: Cluster, host: str) -> bool:
    return not cluster.attempt("node", "ls", "--quiet", host=host).returncode


def test_nothing_readable_is_on_disk(engines: Cluster) -> None:
    engines.docker("secret", "create", "password", "-", stdin=SECRET)
    engines.run("web", "--constraint", "node.hostname==host1")
    token = engines.docker("swarm", "join-token", "--quiet", "manager")
    words = [SECRET, unlock_key(engines), token, "BEGIN PRIVATE KEY", "web.1."]
    for host in ("host1", "host2", "host3"):
        raft = [path for path in files_with(engines, host, words) if "/worker/" not in path]
        assert raft == []


def test_a_manager_that_dies_alone_is_not_locked(engines: Cluster) -> None:
    """Its daemon lives, and remembers the key."""
    before = _managers(engines)
    assert len(before) == 1
    os.kill(before[0], signal.SIGKILL)
    eventually("another manager runs", lambda: _managers(engines) not in ([], before))
    eventually("it answers", lambda: _manages(engines, "host1"))
    assert state(engines) == "active"


def _managers(cluster: Cluster) -> list[int]:
    """Process ids of host1's manager."""
    home = str(cluster.playground.host("host1").data)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"manager" in command and any(home.encode() in word for word in command):
                found.append(int(entry.name))
    return found


def test_a_restarted_manager_is_locked_and_its_tasks_run_on(engines: Cluster) -> None:
    key = unlock_key(engines, "host2")
    (task,) = engines.running("web", 1, host="host2")
    restart(engines, "host1")
    assert state(engines) == "locked"
    for command in (("node", "ls"), ("service", "ls"), ("swarm", "unlock-key"), ("secret", "ls")):
        assert LOCKED in engines.refused(*command)
    assert engines.curl("host1", "GET", "/services")[0] == 503
    assert "Swarm is encrypted and locked" in engines.refused("swarm", "leave")
    assert engines.docker("ps", "--quiet", "--no-trunc") == task["Status"]["ContainerStatus"]["ContainerID"]
    wrong = "SWMKEY-1-" + "A" * 43
    assert "invalid key provided" in engines.refused("swarm", "unlock", stdin=wrong)
    assert engines.curl("host1", "POST", "/swarm/unlock", {"UnlockKey": wrong})[0] == 401
    assert engines.curl("host1", "POST", "/swarm/unlock", {"UnlockKey": "nonsense"})[0] == 400
    assert state(engines) == "locked"
    engines.docker("swarm", "unlock", stdin=key)
    assert state(engines) == "active"
    assert engines.curl("host1", "POST", "/swarm/unlock", {"UnlockKey": key})[0] == 409
    assert engines.docker("secret", "ls", "--format", "{{.Name}}") == "password"
    eventually("host1 is ready again", lambda: _ready(engines, "host1"))
    engines.running("web", 1)  # the same task, or, if the node was taken for down meanwhile, another


def _ready(cluster: Cluster, host: str) -> bool:
    words = ("node", "inspect", "--format", "{{.Status.State}}", host)
    return cluster.attempt(*words, host="host2").stdout.strip() == "ready"


def test_a_rotated_key_opens_and_the_former_one_does_not(engines: Cluster) -> None:
    before = {host: keyring(engines, host) for host in ("host1", "host2", "host3")}
    old = unlock_key(engines)
    said = engines.docker("swarm", "unlock-key", "--rotate")
    new = unlock_key(engines)
    assert old != new
    assert new in said
    for host in before:
        eventually(
            f"{host} is locked with the new key",
            lambda host=host: _kek_id(keyring(engines, host)) != _kek_id(before[host]),
        )
    restart(engines, "host2")
    assert "invalid key provided" in engines.refused("swarm", "unlock", stdin=old, host="host2")
    engines.docker("swarm", "unlock", stdin=new, host="host2")
    assert state(engines, "host2") == "active"


def _kek_id(content: str) -> str:
    found = re.search(r'"kek_id":"(\w+)"', content)
    assert found
    return found[1]


def test_a_demoted_manager_is_not_locked(engines: Cluster) -> None:
    engines.docker("node", "demote", "host3")
    eventually("host3 is a worker", lambda: "ENCRYPTED" not in tls_key(engines, "host3"))
    eventually("host3 is ready", lambda: _ready(engines, "host3"))
    restart(engines, "host3")
    assert state(engines, "host3") == "active"
    status, answer = engines.curl("host3", "POST", "/swarm/unlock", {"UnlockKey": unlock_key(engines)})
    assert status == 503
    assert "not a swarm manager" in answer["message"]


def test_autolock_off_and_on_again(engines: Cluster) -> None:
    engines.docker("swarm", "update", "--autolock=false")
    for host in ("host1", "host2"):
        eventually("it is open", lambda host=host: not locked_on_disk(engines, host))
        eventually("so is its TLS key", lambda host=host: "ENCRYPTED" not in tls_key(engines, host))
    assert "no unlock key is set" in engines.refused("swarm", "unlock-key")
    assert "autolock is not turned on" in engines.refused("swarm", "unlock-key", "--rotate")
    restart(engines, "host2")
    eventually("host2 manages", lambda: _manages(engines, "host2"))
    said = engines.docker("swarm", "update", "--autolock=true")
    assert unlock_key(engines) in said
    for host in ("host1", "host2"):
        eventually("it is locked", lambda host=host: locked_on_disk(engines, host))


def test_power_loss_leaves_all_managers_locked_and_leaving_is_possible(engines: Cluster) -> None:
    key = unlock_key(engines)
    engines.playground.kill("host1", "host2")
    engines.playground.start("host1", "host2")
    assert state(engines, "host1") == state(engines, "host2") == "locked"
    engines.docker("swarm", "unlock", stdin=key, host="host1")
    engines.docker("swarm", "unlock", stdin=key, host="host2")
    eventually("they agree", lambda: _manages(engines, "host2"))
    assert engines.docker("secret", "ls", "--format", "{{.Name}}", host="host2") == "password"
    restart(engines, "host2")
    engines.docker("swarm", "leave", "--force", host="host2")
    assert state(engines, "host2") == "inactive"
