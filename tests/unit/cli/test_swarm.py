"""`shoal swarm …`: flags become settings, tokens come from files, roots are shown and replaced."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine_api import FakeEngine
from tests.unit.cli.conftest import Run

HOUR = 3600 * 10**9
TLS = {"TrustRoot": "PEM\n", "CertIssuerSubject": "s", "CertIssuerPublicKey": "k"}


def cluster(**changes: Any) -> dict[str, Any]:
    spec = {"Name": "default", "CAConfig": {"NodeCertExpiry": 2160 * HOUR, "ForceRotate": 3}}
    return {
        "ID": "c",
        "Version": {"Index": 7},
        "Spec": spec,
        "TLSInfo": TLS,
        "RootRotationInProgress": False,
        "JoinTokens": {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"},
        **changes,
    }


@pytest.fixture
def swarm(engine: FakeEngine) -> FakeEngine:
    engine.on("GET", "/swarm", cluster())
    engine.on("POST", "/swarm/update", {})
    engine.on("GET", "/nodes", [{"ID": "n", "Description": {"Hostname": "h1", "TLSInfo": TLS}}])
    engine.on(
        "GET", "/info", {"Swarm": {"ControlAvailable": True, "RemoteManagers": [{"Addr": "10.0.0.1:2377"}]}}
    )
    return engine


def sent(engine: FakeEngine, path: str) -> dict[str, Any]:
    (call,) = engine.asked("POST", path)
    body = call.body
    assert isinstance(body, dict)
    return body


def test_update_changes_what_was_given_only(swarm: FakeEngine, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    root.write_text("PEM")
    words = (
        *("--task-history-limit", "2", "--dispatcher-heartbeat", "9s", "--cert-expiry", "48h"),
        *("--snapshot-interval", "500", "--max-snapshots", "3"),
        *("--external-ca", f"protocol=cfssl,url=https://ca/,cacert={root},team=web"),
    )
    assert run("swarm", "update", *words).status == 0
    spec = sent(swarm, "/swarm/update")
    assert spec["Orchestration"] == {"TaskHistoryRetentionLimit": 2}
    assert spec["Dispatcher"] == {"HeartbeatPeriod": 9 * 10**9}
    assert spec["Raft"] == {"SnapshotInterval": 500, "KeepOldSnapshots": 3}
    external = {"Protocol": "cfssl", "URL": "https://ca/", "CACert": "PEM", "Options": {"team": "web"}}
    assert spec["CAConfig"] == {"NodeCertExpiry": 48 * HOUR, "ForceRotate": 3, "ExternalCAs": [external]}
    assert "EncryptionConfig" not in spec


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("update",), "nothing to change"),
        (("update", "--cert-expiry", "soon"), "no duration"),
        (("update", "--external-ca", "cfssl"), "not KEY=VALUE"),
        (("update", "--external-ca", "protocol=cfssl"), "url=https"),
        (("update", "--external-ca", "protocol=cfssl,url=https://x,cacert=/nowhere"), "can't read /nowhere"),
        (("ca", "--ca-cert", "x"), "add --rotate"),
        (("ca", "--rotate", "--ca-cert", "/nowhere"), "can't read /nowhere"),
        (("join", "10.0.0.1"), "--token-file"),
    ],
)
def test_nonsense_is_refused_before_anything_is_sent(
    swarm: FakeEngine, run: Run, words: tuple[str, ...], reason: str
) -> None:
    done = run("swarm", *words)
    assert done.status != 0
    assert reason in done.err
    assert not any(call.method == "POST" for call in swarm.calls)


def test_init_has_all_of_dockers_flags(swarm: FakeEngine, run: Run) -> None:
    swarm.on("POST", "/swarm/init", "node1")
    pool = ("--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "26")
    assert run("swarm", "init", "--data-path-port", "5000", *pool, "--cert-expiry", "24h").status == 0
    body = sent(swarm, "/swarm/init")
    assert (body["DataPathPort"], body["SubnetSize"], body["DefaultAddrPool"]) == (5000, 26, ["10.20.0.0/16"])
    assert body["Spec"] == {"CAConfig": {"NodeCertExpiry": 24 * HOUR}}


def test_the_token_may_come_from_a_file(swarm: FakeEngine, run: Run, tmp_path: Path) -> None:
    swarm.on("POST", "/swarm/join", {})
    file = tmp_path / "token"
    file.write_text("SWMTKN-1-x\n")
    assert run("swarm", "join", "--token-file", str(file), "10.0.0.1").status == 0
    body = sent(swarm, "/swarm/join")
    assert (body["JoinToken"], body["RemoteAddrs"]) == ("SWMTKN-1-x", ["10.0.0.1:2377"])


def test_the_root_is_shown_and_replaced(swarm: FakeEngine, run: Run, tmp_path: Path) -> None:
    assert run("swarm", "ca").out == "PEM\n"
    assert run("swarm", "ca", "--rotate").out == "PEM\n"
    assert sent(swarm, "/swarm/update")["CAConfig"]["ForceRotate"] == 4
    swarm.calls.clear()
    for name in ("cert", "key"):
        (tmp_path / name).write_text(name)
    own = ("--ca-cert", str(tmp_path / "cert"), "--ca-key", str(tmp_path / "key"))
    assert run("swarm", "ca", "--rotate", "--detach", *own).out == ""
    config = sent(swarm, "/swarm/update")["CAConfig"]
    assert (config["SigningCACert"], config["SigningCAKey"], config["ForceRotate"]) == ("cert", "key", 3)


def test_nodes_are_filtered_and_say_whether_they_have_the_new_root(swarm: FakeEngine, run: Run) -> None:
    old = TLS | {"TrustRoot": "OLD\n"}
    nodes = [
        {
            "ID": f"id{number}",
            "Version": {"Index": 1},
            "Spec": {"Availability": "active", "Role": "worker"},
            "Description": {"Hostname": f"h{number}", "TLSInfo": tls} if tls else {"Hostname": f"h{number}"},
            "Status": {"State": "ready"},
        }
        for number, tls in enumerate((TLS, old, None))
    ]
    swarm.on("GET", "/nodes", nodes)
    swarm.on("GET", "/info", {"Swarm": {"NodeID": "id0", "Cluster": {"TLSInfo": TLS}}})
    lines = run("node", "ls", "--filter", "role=worker", "--filter", "label=a=b").out.splitlines()
    assert [line.split("  ")[-1].strip() or line for line in lines[:1]] == ["ENGINE VERSION"]
    assert ["Ready" in lines[1], "Needs Rotation" in lines[2], "Unknown" in lines[3]] == [True] * 3
    (call,) = swarm.asked("GET", "/nodes")
    assert call.query["filters"] == '{"role": ["worker"], "label": ["a=b"]}'
    assert "KEY=VALUE" in run("node", "ls", "--filter", "colour=red").err
    swarm.on("GET", "/nodes/id1", nodes[1])
    assert run("node", "demote", "id1").out == "Node id1 is already a worker.\n"
