"""`shoal cluster …` against a fake engine."""

import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from shoal.cli.main import main
from tests.fakes.engine_api import FakeEngine
from tests.unit.backup.test_file import PASSPHRASE, backup, state
from tests.unit.cli.conftest import Run

SECOND = 10**9
LEADER: dict[str, Any] = {
    "ID": "3s8gfb06odx0jclir9rpgmxgi",
    "Hostname": "host1",
    "Address": "192.0.2.11:2377",
    "Role": "leader",
    "Term": 4,
    "Leader": "3s8gfb06odx0jclir9rpgmxgi",
    "LastContact": 0,
    "Lag": 0,
    "LastIndex": 190,
    "AppliedIndex": 189,
    "SnapshotIndex": 100,
    "SnapshotAge": 7200 * SECOND,
    "JournalBytes": 20_000,
    "FreeBytes": 84_856_545_280,
    "SyncP50": 2_416_349,
    "SyncP99": 13_116_402,
    "CertificateExpires": 1_803_051_970 * SECOND,
    "Advertised": "192.0.2.11:2377",
    "Problem": "",
}
SILENT = LEADER | {"ID": "btltm4qpe858ixvozfk22g2p3", "Hostname": "host2", "Role": "unreachable"}


def picture(status: str, may_fail: int, *problems: str) -> dict[str, Any]:
    return {
        "Status": status,
        "Leader": LEADER["ID"],
        "Quorum": {"Managers": 3, "Needed": 2, "Answering": 2, "MayFail": may_fail},
        "Managers": [LEADER, SILENT],
        "Problems": list(problems),
        "Advice": ["have an odd number"],
    }


@pytest.mark.parametrize(("status", "exit_status"), [("healthy", 0), ("degraded", 3), ("danger", 4)])
@pytest.mark.parametrize("form", ["table", "json"])
def test_health_ends_with_what_it_found(
    engine: FakeEngine, run: Run, status: str, exit_status: int, form: str
) -> None:
    engine.on("GET", "/shoal/cluster/health", picture(status, 0, "start host2"))
    result = run("cluster", "health", "--format", form)
    assert result.status == exit_status
    if form == "json":
        assert json.loads(result.out)["Status"] == status
        return
    lines = result.out.splitlines()
    assert lines[1].split()[:9] == [
        "3s8gfb06odx0", "host1", "192.0.2.11:2377", "leader", "4", "0ms", "0", "189", "2.42ms/13.1ms",
    ]  # fmt: skip
    assert "100 (2h old)" in lines[1]
    assert lines[1].endswith("2027-02-19")
    assert lines[2].split() == ["btltm4qpe858", "host2", "192.0.2.11:2377", "unreachable"]
    assert f"{status}: 2 of 3 managers take part, 2 are needed; 0 more may fail" in result.out
    assert "- start host2" in lines
    assert "(advice: have an odd number)" in lines


def test_health_without_a_quorum_says_that_writes_have_stopped(engine: FakeEngine, run: Run) -> None:
    engine.on("GET", "/shoal/cluster/health", picture("danger", -1, "no quorum"))
    assert "writes have stopped" in run("cluster", "health").out


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    file = tmp_path / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    return str(file)


def test_a_backup_is_checked_as_it_is_written(
    engine: FakeEngine, run: Run, tmp_path: Path, passphrase: str
) -> None:
    content, file = backup(state()), tmp_path / "b"
    engine.on("POST", "/shoal/cluster/backup", content)
    result = run("cluster", "backup", "--passphrase-file", passphrase, str(file))
    assert result.status == 0, result.err
    assert file.read_bytes() == content
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "1 nodes, 1 services, 3 secrets" in result.err
    (asked,) = engine.asked("POST", "/shoal/cluster/backup")
    assert asked.body == {"Passphrase": PASSPHRASE, "UnlockKey": False}
    assert run("cluster", "backup", "--verify", "--passphrase-file", passphrase, str(file)).status == 0


def test_a_backup_to_standard_output_is_the_file_and_nothing_else(
    engine: FakeEngine, tmp_path: Path, passphrase: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    content = backup(state())
    engine.on("POST", "/shoal/cluster/backup", content)
    with pytest.raises(SystemExit) as ending:
        main(
            [
                "--host",
                f"unix://{tmp_path / 'e.sock'}",
                "cluster",
                "backup",
                "--passphrase-file",
                passphrase,
                "-",
            ]
        )
    assert ending.value.code == 0
    assert capfdbinary.readouterr().out == content


def test_a_backup_with_the_unlock_key(engine: FakeEngine, run: Run, tmp_path: Path) -> None:
    key = "SWMKEY-1-abcdefg"
    engine.on("GET", "/swarm/unlockkey", {"UnlockKey": key})
    engine.on("POST", "/shoal/cluster/backup", backup(state(), key))
    result = run("cluster", "backup", "--unlock-key", str(tmp_path / "b"))
    assert result.status == 0, result.err
    assert engine.asked("POST", "/shoal/cluster/backup")[0].body == {"Passphrase": "", "UnlockKey": True}


@pytest.mark.parametrize("cut", [5, 500])
def test_a_backup_that_breaks_off_leaves_no_file(
    engine: FakeEngine, run: Run, tmp_path: Path, passphrase: str, cut: int
) -> None:
    file = tmp_path / "b"
    file.write_text("an older one")
    engine.on("POST", "/shoal/cluster/backup", backup(state())[:cut])
    result = run("cluster", "backup", "--passphrase-file", passphrase, str(file))
    assert result.status == 1
    assert "damaged" in result.err
    assert file.read_text() == "an older one"
    assert not (tmp_path / "b.part").exists()
    file.write_bytes(backup(state())[:cut])
    assert run("cluster", "backup", "--verify", "--passphrase-file", passphrase, str(file)).status == 1


def test_a_file_that_can_not_be_is_one_line(run: Run, engine: FakeEngine, passphrase: str) -> None:
    result = run("cluster", "backup", "--passphrase-file", passphrase, "/nonexistent/b")
    assert (result.status, result.err) == (
        1,
        "shoal: can't write /nonexistent/b: No such file or directory\n",
    )
    result = run("cluster", "restore", "--passphrase-file", passphrase, "/nonexistent/b")
    assert (result.status, result.err) == (2, "shoal: can't read /nonexistent/b: No such file or directory\n")


def test_restore_sends_the_options_and_then_the_file(
    engine: FakeEngine, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_BACKUP_PASSPHRASE", PASSPHRASE)
    file, content = tmp_path / "b", b"\0\n" * 100_000
    file.write_bytes(content)
    engine.on("POST", "/shoal/cluster/restore", {"NodeID": "new", "ClusterID": "c1"})
    engine.on("GET", "/nodes", [{}, {}])
    result = run("cluster", "restore", "--advertise-addr", "192.0.2.9", "--force", str(file))
    assert result.status == 0, result.err
    assert "Cluster c1 restored: this node (new) is its only manager." in result.out
    assert "it knows 2 nodes" in result.err
    (asked,) = engine.asked("POST", "/shoal/cluster/restore")
    options, _, sent = asked.body.partition(b"\n")
    assert sent == content
    assert json.loads(options) == {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": "192.0.2.9",
        "DataPathAddr": "",
        "Passphrase": PASSPHRASE,
        "Force": True,
    }


def test_a_restore_that_is_refused_says_why(
    engine: FakeEngine, run: Run, tmp_path: Path, passphrase: str
) -> None:
    file = tmp_path / "b"
    file.write_bytes(b"x")
    engine.on("POST", "/shoal/cluster/restore", (409, "this node is part of a cluster"))
    result = run("cluster", "restore", "--passphrase-file", passphrase, str(file))
    assert (result.status, result.err) == (1, "shoal: this node is part of a cluster\n")
    engine.on("POST", "/shoal/cluster/restore", {"NodeID": "new", "ClusterID": "c1"})
    engine.on("GET", "/nodes", (503, "no leader"))
    result = run("cluster", "restore", "--passphrase-file", passphrase, str(file))
    assert result.status == 0
    assert "still starting: no leader" in result.err


def test_without_a_terminal_the_passphrase_must_come_from_somewhere(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOAL_BACKUP_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    result = run("cluster", "backup", "b")
    assert result.status == 2
    assert "--passphrase-file" in result.err
