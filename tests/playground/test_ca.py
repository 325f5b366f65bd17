"""`docker swarm ca`: roots that replace each other, CAs outside the cluster, certificates that expired."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from cluster.identity import Identity, create_csr, issue_certificate, parse_join_token
from cluster.root_ca import vouched_for
from cluster.seams import SECOND
from shoal.playground.layout import CLIENT, REGISTRY_NAME
from tests.guarantees.hosts import manager_pid
from tests.support.cfssl import PATH, CertificateAuthority, pem
from tests.support.cluster import Cluster, Json, eventually, playground

pytestmark = pytest.mark.playground

HOUR = 3600 * SECOND
MANAGERS = ("host1", "host2", "host3")
PORT = 8888
URL = f"https://{REGISTRY_NAME}:{PORT}{PATH}"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Three managers and a worker. The tests below run in order, each on what the one before left."""
    with playground(hosts=4, managers=3) as cluster:
        yield cluster


def swarm(cluster: Cluster, host: str = "host1") -> Json:
    """GET /swarm."""
    status, answer = cluster.curl(host, "GET", "/swarm")
    assert status == 200, answer
    found: Json = answer
    return found


def tls(cluster: Cluster, host: str = "host1") -> dict[str, str]:
    """The TLS column of `docker node ls`."""
    listed = cluster.docker("node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}", host=host)
    return dict(row.split(" ", 1) for row in listed.splitlines())


def data(cluster: Cluster, host: str) -> Path:
    """Where the node keeps its part in the cluster."""
    return cluster.playground.host(host).data / "swarm"


def identity(cluster: Cluster, host: str) -> Identity:
    """What the node's files hold."""
    directory = data(cluster, host) / "certificates"
    certificate, key, root = ((directory / name).read_bytes() for name in ("node.crt", "node.key", "ca.crt"))
    return Identity(certificate, key, root)


def leader(cluster: Cluster, host: str = "host1") -> str:
    """The leading manager's host."""
    listed = cluster.docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}", host=host)
    return next(row.split()[0] for row in listed.splitlines() if row.endswith("Leader"))


def kill_the_leader(cluster: Cluster) -> None:
    """With SIGKILL; returns when it takes part again."""
    host = leader(cluster)
    pid = manager_pid(cluster, host)
    assert cluster.playground.run(host, ["kill", "-KILL", str(pid)]).returncode == 0
    eventually("it is another process", lambda: manager_pid(cluster, host) not in (0, pid))
    eventually("it is back", lambda: cluster.client(host).api.inspect_swarm()["RootRotationInProgress"])


def all_ready(cluster: Cluster, host: str = "host1") -> bool:
    """Everybody has a certificate of the root in force, trusts that one only, and no rotation is going on."""
    found = swarm(cluster, host)
    if found["RootRotationInProgress"] or set(tls(cluster, host).values()) != {"Ready"}:
        return False
    root = found["TLSInfo"]["TrustRoot"].encode()
    own = [identity(cluster, each) for each in cluster.hosts]
    return all(each.root_ca == root and vouched_for(each.certificate, root) for each in own)


def on_disk(cluster: Cluster, host: str, word: bytes) -> list[str]:
    """The files of a manager's state in which the word can be read."""
    return [
        path.name
        for path in (data(cluster, host) / "raft").rglob("*")
        if path.is_file() and word in path.read_bytes()
    ]


def test_the_root_can_be_shown_and_replaced(nodes: Cluster) -> None:
    first = nodes.docker("swarm", "ca")
    assert first + "\n" == swarm(nodes)["TLSInfo"]["TrustRoot"]
    tokens = swarm(nodes)["JoinTokens"]
    second = nodes.docker("swarm", "ca", "--rotate", "--quiet") or nodes.docker("swarm", "ca")
    assert second != first
    rotated = swarm(nodes)
    assert not rotated["RootRotationInProgress"]
    assert rotated["Spec"]["CAConfig"]["ForceRotate"] == 1
    for role, token in rotated["JoinTokens"].items():
        assert token != tokens[role]
        assert parse_join_token(token).digest != parse_join_token(tokens[role]).digest
    assert all_ready(nodes)


def test_a_node_without_power_is_waited_for_and_managers_may_be_killed_meanwhile(nodes: Cluster) -> None:
    nodes.playground.kill("host4")
    before = swarm(nodes)["TLSInfo"]["TrustRoot"]
    nodes.docker("swarm", "ca", "--rotate", "--detach", "--cert-expiry", "48h")
    eventually(
        "those that are there have renewed",
        lambda: (
            tls(nodes) == dict.fromkeys(("host1", "host2", "host3"), "Ready") | {"host4": "Needs Rotation"}
        ),
    )
    assert swarm(nodes)["RootRotationInProgress"]
    assert swarm(nodes)["TLSInfo"]["TrustRoot"] == before
    waited_for = "a new root CA waits for nodes that are down: host4"
    info = ("info", "--format", "{{.Swarm.Warnings}}")
    eventually("docker info says whom it waits for", lambda: waited_for in nodes.docker(*info))
    for _ in range(2):  # connections are made anew, between managers whose certificates are of either root
        kill_the_leader(nodes)
    nodes.docker("swarm", "ca", "--rotate", "--detach")  # another one takes its place
    nodes.playground.start("host4")
    eventually("all have renewed", lambda: all_ready(nodes))
    assert swarm(nodes)["TLSInfo"]["TrustRoot"] != before
    peer = identity(nodes, "host4").peer
    assert abs(peer.not_after - time.time_ns() - 48 * HOUR) < HOUR // 2


def test_a_root_from_outside_comes_with_its_key_which_nobody_can_read(nodes: Cluster, tmp_path: Path) -> None:
    own = CertificateAuthority()
    certificate, key = tmp_path / "root.pem", tmp_path / "root.key"
    certificate.write_text(pem(own.certificate))
    key.write_text(pem(own.key))
    files = ("--ca-cert", str(certificate), "--ca-key", str(key))
    assert "--ca-key flag" in nodes.refused("swarm", "ca", "--rotate", *files[:2])
    nodes.docker("swarm", "ca", "--rotate", "--quiet", *files)
    assert swarm(nodes)["TLSInfo"]["TrustRoot"] == pem(own.certificate)
    assert all_ready(nodes)
    body = pem(own.key).splitlines()[1].encode()
    assert [on_disk(nodes, host, body) for host in MANAGERS] == [[], [], []]
    assert "PRIVATE KEY" not in str(swarm(nodes))

    def expire(host: str) -> None:
        """As if it had been off for days."""
        held, (private, csr) = identity(nodes, host), create_csr()
        directory, peer = data(nodes, host) / "certificates", held.peer
        made = issue_certificate(
            (pem(own.certificate).encode(), pem(own.key).encode()),
            csr,
            node_id=peer.node_id,
            role=peer.role,
            cluster_id=peer.cluster_id,
            now=time.time_ns() - 50 * HOUR,
            lifetime=HOUR,
        )
        (directory / "node.crt").write_bytes(made)
        (directory / "node.key").write_bytes(private)

    for host in nodes.hosts:
        nodes.playground.stop_daemon(host)
        expire(host)
    for host in nodes.hosts:
        nodes.playground.restart_daemon(host)
    # Managers have the CA, and help themselves; a worker must be let in.
    eventually("the managers are back", lambda: nodes.attempt("node", "ls").returncode == 0)
    eventually("they agree", lambda: nodes.docker("node", "ls").count("Reachable") == 2)
    ids = {name: node["ID"] for name, node in nodes.nodes().items()}
    said = eventually(
        "it says so", lambda: nodes.docker("info", "--format", "{{.Swarm.Error}}", host="host4")
    )
    assert "docker swarm join-token worker" in said
    words = ("--token", nodes.docker("swarm", "join-token", "-q", "worker"), f"{nodes.address('host1')}:2377")
    assert "joined a swarm as a worker" in nodes.docker("swarm", "join", *words, host="host4")
    eventually("all have certificates", lambda: all_ready(nodes))
    assert {name: node["ID"] for name, node in nodes.nodes().items()} == ids
    assert "already part of a swarm" in nodes.refused("swarm", "join", *words, host="host4")


@pytest.fixture
def outside(nodes: Cluster, tmp_path: Path) -> Path:
    """A CA in the client namespace; the file with its root."""
    command = f"{sys.executable} -m tests.support.cfssl {tmp_path} {REGISTRY_NAME} {PORT}"
    log = tmp_path / "log"
    nodes.playground.run(CLIENT, ["sh", "-c", f"cd {Path.cwd()}; setsid {command} </dev/null >{log} 2>&1 &"])
    root = tmp_path / "root.pem"
    eventually("it serves", root.exists)
    return root


def test_a_ca_outside_the_cluster(nodes: Cluster, outside: Path) -> None:
    there = f"protocol=cfssl,url={URL},cacert={outside}"
    wrong = f"protocol=cfssl,url={URL.replace(str(PORT), '8889')},cacert={outside}"
    assert "Nothing was changed" in nodes.refused(
        "swarm", "ca", "--rotate", "--ca-cert", str(outside), "--external-ca", wrong
    )
    nodes.docker("swarm", "ca", "--rotate", "--quiet", "--ca-cert", str(outside), "--external-ca", there)
    assert all_ready(nodes)
    config = swarm(nodes)["Spec"]["CAConfig"]
    assert config["ExternalCAs"] == [{"Protocol": "cfssl", "URL": URL, "CACert": outside.read_text()}]
    issued = x509.load_pem_x509_certificate(identity(nodes, "host4").certificate)
    assert issued.issuer.rfc4514_string() == "CN=Example Root"
    # A new node's certificate comes from there, too.
    former = nodes.nodes()["host4"]["ID"]
    nodes.docker("swarm", "leave", host="host4")
    words = ("--token", nodes.docker("swarm", "join-token", "-q", "worker"), f"{nodes.address('host1')}:2377")
    nodes.docker("swarm", "join", *words, host="host4")
    issued = x509.load_pem_x509_certificate(identity(nodes, "host4").certificate)
    assert issued.issuer.rfc4514_string() == "CN=Example Root"
    nodes.docker("node", "rm", "--force", former)  # it would be waited for
    nodes.docker("swarm", "ca", "--rotate", "--quiet")  # and back; it vouches for the cluster's own
    assert all_ready(nodes)
    assert swarm(nodes)["TLSInfo"]["TrustRoot"] != outside.read_text()


def test_snapshots_are_taken_and_kept_as_the_operator_says(nodes: Cluster) -> None:
    found = swarm(nodes)
    found["Spec"]["Raft"]["LogEntriesForSlowFollowers"] = 5  # for which docker has no flag
    status, answer = nodes.curl(
        "host1", "POST", f"/swarm/update?version={found['Version']['Index']}", found["Spec"]
    )
    assert status == 200, answer
    nodes.docker("swarm", "update", "--snapshot-interval", "20", "--max-snapshots", "2")

    def former() -> set[int]:
        """How many snapshots before the newest the managers have on their disks."""
        names = [[path.name for path in (data(nodes, host) / "raft").iterdir()] for host in MANAGERS]
        return {sum(name.removeprefix("snapshot.").isdigit() for name in each) for each in names}

    node = nodes.nodes()["host4"]
    client = nodes.client().api
    for number in range(400):
        if number % 10 == 0 and former() == {2}:
            break
        found = client.inspect_node(node["ID"])
        client.update_node(
            node["ID"], found["Version"]["Index"], found["Spec"] | {"Labels": {"n": str(number)}}
        )
    eventually("two are kept", lambda: former() == {2})
    nodes.docker("swarm", "update", "--max-snapshots", "0", "--snapshot-interval", "10000")
    eventually("none is kept", lambda: former() == {0})
