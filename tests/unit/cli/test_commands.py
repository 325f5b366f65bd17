"""`shoal` as a user types it, against a fake engine: what it asks for, what it prints, how it fails."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from shoal.cli.logs import split_details
from tests.fakes.engine_api import Call, FakeEngine
from tests.unit.cli.conftest import Run

NODE = {
    "ID": "node1id",
    "Version": {"Index": 5},
    "Spec": {"Role": "manager", "Availability": "active", "Labels": {"zone": "a"}},
    "Description": {"Hostname": "host1", "Engine": {"EngineVersion": "28.0"}},
    "Status": {"State": "ready", "Addr": "192.0.2.11"},
    "ManagerStatus": {"Leader": True, "Reachability": "reachable"},
}


def service(replicas: int = 3) -> dict[str, Any]:
    return {
        "ID": "svc1",
        "Version": {"Index": 7},
        "Spec": {
            "Name": "web",
            "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1@sha256:aa"}},
            "Mode": {"Replicated": {"Replicas": replicas}},
        },
        "Endpoint": {"Ports": [{"PublishedPort": 8080, "TargetPort": 80, "Protocol": "tcp"}]},
        "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": replicas},
    }


def task(
    slot: int = 1, state: str = "running", at: str = "2026-01-01T00:00:00Z", err: str = ""
) -> dict[str, Any]:
    return {
        "ID": f"task{slot}{state}",
        "ServiceID": "svc1",
        "NodeID": "node1id",
        "Slot": slot,
        "CreatedAt": at,
        "DesiredState": "running" if state == "running" else "shutdown",
        "Spec": {"ContainerSpec": {"Image": "nginx:1@sha256:aa"}},
        "Status": {"State": state, "Timestamp": at, "Err": err},
    }


@pytest.fixture
def swarm(engine: FakeEngine) -> FakeEngine:
    """An engine that manages one node and one service."""
    engine.on(
        "GET", "/info", {"Swarm": {"NodeID": "node1id", "RemoteManagers": [{"Addr": "192.0.2.11:2377"}]}}
    )
    engine.on("GET", "/nodes", [NODE])
    engine.on("GET", "/nodes/node1id", NODE)
    engine.on("POST", "/nodes/node1id/update", None)
    engine.on("GET", "/services", [service()])
    engine.on("GET", "/services/web", service())
    engine.on("GET", "/services/svc1", service())
    engine.on("POST", "/services/svc1/update", {"Warnings": None})
    engine.on("GET", "/tasks", [task(1), task(2), task(3)])
    engine.on(
        "GET",
        "/swarm",
        {"JoinTokens": {"Worker": "WT", "Manager": "MT"}, "Version": {"Index": 9}, "Spec": {"a": 1}},
    )
    return engine


def test_service_create_pins_the_image_and_waits(swarm: FakeEngine, run: Run) -> None:
    swarm.on("GET", "/distribution/registry:5000/web/json", {"Descriptor": {"digest": "sha256:bb"}})
    swarm.on("POST", "/services/create", {"ID": "svc1"})
    done = run(
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "3",
        "-p",
        "8080:80",
        "registry:5000/web",
        "run",
        "-x",
    )
    assert (done.status, done.out) == (0, "svc1\n")
    assert "as asked for" in done.err
    (call,) = swarm.asked("POST", "/services/create")
    assert call.body["TaskTemplate"]["ContainerSpec"] == {
        "Image": "registry:5000/web@sha256:bb",
        "Args": ["run", "-x"],
    }
    assert call.body["EndpointSpec"]["Ports"][0]["PublishedPort"] == 8080


def test_service_create_goes_on_when_the_registry_does_not_answer(swarm: FakeEngine, run: Run) -> None:
    swarm.on("POST", "/services/create", {"ID": "svc1", "Warnings": ["mind the gap"]})
    done = run("service", "create", "-d", "web:1")
    assert done.status == 0
    assert "could not be pinned" in done.err
    assert "mind the gap" in done.err
    assert swarm.asked("GET", "/tasks") == []


def test_service_scale(swarm: FakeEngine, run: Run) -> None:
    done = run("service", "scale", "-d", "web=12")
    assert done.out == "web scaled to 12\n"
    (call,) = swarm.asked("POST", "/services/svc1/update")
    assert call.query == {"version": "7"}
    assert call.body["Mode"] == {"Replicated": {"Replicas": 12}}


@pytest.mark.parametrize("target", ["web", "web=", "web=many", "=3", "web=-1"])
def test_service_scale_explains_itself(swarm: FakeEngine, run: Run, target: str) -> None:
    done = run("service", "scale", target)
    assert done.status == 2
    assert "write SERVICE=REPLICAS" in done.err
    assert swarm.calls == []


def test_service_update_and_rollback(swarm: FakeEngine, run: Run) -> None:
    assert run("service", "update", "-d", "--env-add", "A=1", "--limit-memory", "64m", "web").status == 0
    refused = run("service", "update", "--rollback", "web")
    assert refused.status == 2
    assert "nothing to roll back" in refused.err
    swarm.on("GET", "/services/web", service() | {"PreviousSpec": {"Name": "web"}})
    assert run("service", "update", "-d", "--rollback", "web").status == 0
    changed, rolled = swarm.asked("POST", "/services/svc1/update")
    assert changed.body["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]
    assert rolled.query["rollback"] == "previous"


def test_service_update_finds_the_network_to_leave_by_its_name(swarm: FakeEngine, run: Run) -> None:
    attached = service()
    attached["Spec"]["TaskTemplate"]["Networks"] = [{"Target": "netid"}, {"Target": "other"}]
    swarm.on("GET", "/services/web", attached)
    swarm.on("GET", "/networks/back", {"Id": "netid"})
    assert run("service", "update", "-d", "--network-rm", "back", "web").status == 0
    (call,) = swarm.asked("POST", "/services/svc1/update")
    assert call.body["TaskTemplate"]["Networks"] == [{"Target": "other"}]


def test_service_ls(swarm: FakeEngine, run: Run) -> None:
    lines = run("service", "ls").out.splitlines()
    assert lines[0].split() == ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]
    assert lines[1].split() == ["svc1", "web", "replicated", "2/3", "nginx:1", "*:8080->80/tcp"]
    assert json.loads(run("service", "ls", "--format", "json").out)[0]["ID"] == "svc1"
    assert run("service", "ls", "-q").out == "svc1\n"


def test_service_ps_shows_history_below_the_present(swarm: FakeEngine, run: Run) -> None:
    old = task(1, "failed", "2025-01-01T00:00:00Z", "task: non-zero exit (1)")
    swarm.on("GET", "/tasks", [old, task(1)])
    lines = run("service", "ps", "web").out.splitlines()
    assert lines[1].split()[1] == "web.1"
    assert lines[2].split()[1:3] == ["\\_", "web.1"]
    assert "non-zero exit (1)" in lines[2]
    assert "host1" in lines[1]


def test_errors_are_one_line_and_keep_the_engines_words(swarm: FakeEngine, run: Run) -> None:
    swarm.on("DELETE", "/services/web", (404, "service web not found"))
    done = run("service", "rm", "web")
    assert (done.status, done.out, done.err) == (1, "", "shoal: service web not found\n")


def test_wrong_flags_end_with_two(run: Run) -> None:
    assert run("service", "create", "--replicas", "many", "nginx").status == 2
    assert run("service", "nonsense").status == 2
    assert run("nonsense").status == 2
    assert "no port" in run("service", "create", "-p", "x", "nginx").err


def test_swarm_init_shows_how_to_join(swarm: FakeEngine, run: Run) -> None:
    swarm.on("POST", "/swarm/init", "node1id")
    done = run("swarm", "init", "--advertise-addr", "192.0.2.11")
    assert "shoal swarm join --token WT 192.0.2.11:2377" in done.out
    (call,) = swarm.asked("POST", "/swarm/init")
    assert call.body["AdvertiseAddr"] == "192.0.2.11"
    assert call.body["ListenAddr"] == "0.0.0.0:2377"


def test_swarm_join_adds_the_port(swarm: FakeEngine, run: Run) -> None:
    swarm.on("POST", "/swarm/join", None)
    assert "joined a swarm as a worker" in run("swarm", "join", "--token", "T", "192.0.2.11").out
    assert swarm.asked("POST", "/swarm/join")[0].body["RemoteAddrs"] == ["192.0.2.11:2377"]


def test_swarm_tokens(swarm: FakeEngine, run: Run) -> None:
    swarm.on("POST", "/swarm/update", None)
    assert run("swarm", "join-token", "-q", "manager").out == "MT\n"
    assert run("swarm", "join-token", "--rotate", "-q", "worker").out == "WT\n"
    assert swarm.asked("POST", "/swarm/update")[0].query == {"rotateWorkerToken": "true", "version": "9"}


def test_autolock_shows_the_key_that_it_makes(swarm: FakeEngine, run: Run) -> None:
    key = {"UnlockKey": "SWMKEY-1-x"}
    swarm.on("POST", "/swarm/init", "node1id")
    swarm.on("POST", "/swarm/update", None)
    swarm.on("GET", "/swarm/unlockkey", key)
    assert "\n    SWMKEY-1-x\n" in run("swarm", "init", "--autolock").out
    assert swarm.asked("POST", "/swarm/init")[0].body["AutoLockManagers"] is True
    assert "SWMKEY-1-x" in run("swarm", "update", "--autolock", "true").out
    (call,) = swarm.asked("POST", "/swarm/update")
    assert call.body == {"a": 1, "EncryptionConfig": {"AutoLockManagers": True}}
    assert run("swarm", "unlock-key", "-q").out == "SWMKEY-1-x\n"
    assert "autolock is off" in run("swarm", "unlock-key", "--rotate").err
    key["UnlockKey"] = ""
    assert "there is no unlock key" in run("swarm", "unlock-key").err


def test_rotating_the_unlock_key(swarm: FakeEngine, run: Run) -> None:
    locking = {"Version": {"Index": 9}, "Spec": {"EncryptionConfig": {"AutoLockManagers": True}}}
    swarm.on("GET", "/swarm", locking)
    swarm.on("POST", "/swarm/update", None)
    swarm.on("GET", "/swarm/unlockkey", {"UnlockKey": "SWMKEY-1-y"})
    assert run("swarm", "unlock-key", "--rotate", "-q").out == "SWMKEY-1-y\n"
    (call,) = swarm.asked("POST", "/swarm/update")
    assert call.query == {"rotateManagerUnlockKey": "true", "version": "9"}


def test_unlock_reads_the_key_from_a_pipe(
    swarm: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm.on("POST", "/swarm/unlock", None)
    monkeypatch.setattr("sys.stdin", io.StringIO("SWMKEY-1-x\n"))
    assert run("swarm", "unlock").status == 0
    assert swarm.asked("POST", "/swarm/unlock")[0].body == {"UnlockKey": "SWMKEY-1-x"}


def test_swarm_leave(swarm: FakeEngine, run: Run) -> None:
    swarm.on("POST", "/swarm/leave", None)
    assert run("swarm", "leave", "--force").status == 0
    assert swarm.asked("POST", "/swarm/leave")[0].query == {"force": "true"}


def test_node_commands(swarm: FakeEngine, run: Run) -> None:
    row = run("node", "ls").out.splitlines()[1].split()
    assert row == ["node1id", "*", "host1", "Ready", "Active", "Leader", "Unknown", "28.0"]
    assert json.loads(run("node", "inspect", "self").out)[0]["ID"] == "node1id"
    assert run("node", "demote", "host1").status == 0
    assert (
        run(
            "node", "update", "--availability", "drain", "--label-add", "b=2", "--label-rm", "zone", "host1"
        ).status
        == 0
    )
    demoted, changed = swarm.asked("POST", "/nodes/node1id/update")
    assert demoted.body == NODE["Spec"] | {"Role": "worker"}  # type: ignore[operator]
    assert changed.body == {"Role": "manager", "Availability": "drain", "Labels": {"b": "2"}}
    assert changed.query == {"version": "5"}
    assert "no node 'host9'" in run("node", "rm", "host9").err
    assert run("node", "ps").out.count("web.") == 3


def test_a_hostname_that_two_nodes_bear_is_refused(swarm: FakeEngine, run: Run) -> None:
    swarm.on("GET", "/nodes", [NODE, NODE | {"ID": "node2id"}])
    assert "means 2 nodes" in run("node", "rm", "host1").err


def test_network_commands(engine: FakeEngine, run: Run) -> None:
    engine.on("POST", "/networks/create", {"Id": "n1"})
    engine.on("GET", "/networks", [{"Id": "n1" * 20, "Name": "back", "Driver": "overlay", "Scope": "swarm"}])
    engine.on("DELETE", "/networks/back", None)
    assert (
        run("network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "-o", "encrypted", "back").out
        == "n1\n"
    )
    (call,) = engine.asked("POST", "/networks/create")
    assert call.body["IPAM"]["Config"] == [{"Subnet": "10.7.0.0/24"}]
    assert call.body["Options"] == {"encrypted": ""}
    assert run("network", "ls").out.splitlines()[1].split() == ["n1n1n1n1n1n1", "back", "overlay", "swarm"]
    assert run("network", "rm", "back").out == "back\n"


def test_keys_are_rotated_for_all_encrypted_networks(engine: FakeEngine, run: Run) -> None:
    engine.on("POST", "/shoal/networks/rotate-keys", {"Epoch": 3})
    refused = run("network", "rotate-keys", "vault")
    assert refused.status != 0
    assert "keys are the cluster's, not a network's: leave vault out" in refused.err
    assert run("network", "rotate-keys").out == "keys of epoch 4 are being made\n"
    assert len(engine.asked("POST", "/shoal/networks/rotate-keys")) == 1


def test_a_network_takes_each_nodes_settings(engine: FakeEngine, run: Run) -> None:
    engine.on("POST", "/networks/create", {"Id": "n1"})
    run("network", "create", "-d", "macvlan", "--scope", "swarm", "--config-from", "wires", "lan")
    run("network", "create", "--config-only", "--ipv6", "-o", "parent=eth0", "wires")
    lan, wires = (call.body for call in engine.asked("POST", "/networks/create"))
    assert (lan["Driver"], lan["Scope"], lan["ConfigFrom"]) == ("macvlan", "swarm", {"Network": "wires"})
    assert (wires["ConfigOnly"], wires["EnableIPv6"], wires["Options"]) == (True, True, {"parent": "eth0"})


@pytest.mark.parametrize(
    ("reference", "query"),
    [
        ("nginx", {"fromImage": "nginx", "tag": "latest"}),
        ("registry:5000/web", {"fromImage": "registry:5000/web", "tag": "latest"}),
        ("registry:5000/web:2", {"fromImage": "registry:5000/web", "tag": "2"}),
        ("web@sha256:aa", {"fromImage": "web", "tag": "sha256:aa"}),
    ],
)
def test_image_pull(engine: FakeEngine, run: Run, reference: str, query: dict[str, str]) -> None:
    progress = {"id": "l1", "status": "Downloading", "progressDetail": {"current": 1, "total": 2}}
    engine.on("POST", "/images/create", json.dumps(progress).encode() + b'\n{"status": "Status: done"}\n')
    done = run("image", "pull", reference)
    assert (done.status, done.out) == (0, f"{reference}\n")
    assert engine.asked("POST", "/images/create")[0].query == query


def test_a_pull_that_fails_on_the_way_fails(engine: FakeEngine, run: Run) -> None:
    engine.on("POST", "/images/create", b'{"error": "manifest unknown"}\n')
    done = run("image", "pull", "web")
    assert done.status == 1
    assert "manifest unknown" in done.err


def test_image_load_sends_the_file(engine: FakeEngine, run: Run, tmp_path: Path) -> None:
    (tmp_path / "web.tar").write_bytes(b"tar" * 1000)
    engine.on("POST", "/images/load", b'{"stream": "Loaded image: web:1\\n"}\n')
    assert run("image", "load", "-i", str(tmp_path / "web.tar")).out == "Loaded image: web:1\n"
    assert engine.asked("POST", "/images/load")[0].body == b"tar" * 1000


def test_image_ls(engine: FakeEngine, run: Run) -> None:
    engine.on(
        "GET",
        "/images/json",
        [
            {
                "Id": "sha256:" + "ab" * 32,
                "RepoTags": ["registry:5000/web:1"],
                "Size": 12_300_000,
                "Created": 0,
            },
            {"Id": "sha256:" + "cd" * 32, "RepoTags": None, "Size": 5, "Created": 0},
        ],
    )
    rows = [line.split() for line in run("image", "ls").out.splitlines()[1:]]
    assert rows == [["<none>", "<none>", "cd" * 6, "5B"], ["registry:5000/web", "1", "ab" * 6, "12.3MB"]]


def _frame(stream: int, text: str) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text.encode()


def test_service_logs_name_the_task_and_keep_the_streams_apart(swarm: FakeEngine, run: Run) -> None:
    details = "com.docker.swarm.node.id=node1id,com.docker.swarm.task.id=task1running"
    swarm.on("GET", "/services/svc1/logs", _frame(1, f"{details} hello\n") + _frame(2, f"{details} oops\n"))
    done = run("service", "logs", "-n", "5", "web")
    assert done.out == "web.1.task1running@host1    | hello\n"
    assert done.err == "web.1.task1running@host1    | oops\n"
    assert swarm.asked("GET", "/services/svc1/logs")[0].query["tail"] == "5"


def test_details_of_a_line_come_before_or_after_its_time() -> None:
    assert split_details(b"a=1,b=2 text\n") == ({"a": "1", "b": "2"}, b"text\n")
    with_time = b"2026-01-01T00:00:00.123456789Z a=1 text\n"
    assert split_details(with_time) == ({"a": "1"}, b"2026-01-01T00:00:00.123456789Z text\n")
    assert split_details(b"plain text\n") == ({}, b"plain text\n")


def test_container_logs(engine: FakeEngine, run: Run) -> None:
    engine.on("GET", "/containers/c/json", {"Id": "cid", "Config": {"Tty": False}})
    engine.on("GET", "/containers/cid/logs", _frame(1, "one\n"))
    assert run("logs", "c").out == "one\n"
    engine.on("GET", "/containers/c/json", {"Id": "cid", "Config": {"Tty": True}})
    engine.on("GET", "/containers/cid/logs", b"raw\r\n")
    assert run("logs", "c").out == "raw\r\n"


def test_ps(engine: FakeEngine, run: Run) -> None:
    engine.on(
        "GET",
        "/containers/json",
        [
            {
                "Id": "ab" * 32,
                "Image": "nginx:1@sha256:aa",
                "Command": "nginx -g 'daemon off;' and more",
                "Created": 0,
                "Status": "Up 3 minutes",
                "Names": ["/web.1.x"],
            }
        ],
    )
    (row,) = run("ps", "--all").out.splitlines()[1:]
    assert row.startswith("abababababab   nginx:1")
    assert row.endswith("Up 3 minutes   web.1.x")
    assert engine.calls[0].query == {"all": "true"}


def test_version_shows_the_client_even_without_an_engine(run: Run, engine: FakeEngine) -> None:
    engine.on("GET", "/version", (500, "broken"))
    done = run("version")
    assert done.status == 1
    assert done.out.startswith("Client: ")
    engine.on("GET", "/version", {"Version": "0.1.0", "ApiVersion": "1.50", "MinAPIVersion": "1.24"})
    assert "Server: 0.1.0 (API 1.50, from 1.24)" in run("version").out


def test_info_lists_warnings_apart(swarm: FakeEngine, run: Run) -> None:
    swarm.on(
        "GET",
        "/info",
        {"Name": "host1", "Warnings": ["no swap limit"], "Swarm": {"LocalNodeState": "inactive"}},
    )
    done = run("info")
    assert "Name:             host1" in done.out
    assert done.err == "WARNING: no swap limit\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    assert "_SHOAL_COMPLETE" in run("completion", shell).out


def test_help_names_every_command_without_importing_it(run: Run) -> None:
    done = run("--help")
    assert done.status == 0
    for name in ("service", "swarm", "node", "playground", "doctor"):
        assert f"\n  {name}" in done.out


@pytest.mark.parametrize(
    "command", ["service", "swarm", "node", "network", "image", "playground", "doctor", "ps", "logs"]
)
def test_every_command_has_help(run: Run, command: str) -> None:
    assert run(command, "--help").out.startswith("Usage: shoal")


def test_an_answer_may_depend_on_the_call(engine: FakeEngine, run: Run) -> None:
    def answer(call: Call) -> object:
        return [] if call.query.get("all") == "true" else (400, "say all")

    engine.on("GET", "/containers/json", answer)
    assert run("ps", "-a").status == 0
    assert run("ps").status == 1
