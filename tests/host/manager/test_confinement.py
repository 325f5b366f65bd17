"""What a manager can still do once it has given up root, tried from inside."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manager import landlock

pytestmark = pytest.mark.host

UID = 65521
SHOAL = Path(__file__).parents[3]
_TRIAL = """
import hidden_package, importlib, json, os, signal, socket, sys, threading
from pathlib import Path
from manager.confinement import confine
from manager.settings import parse_settings
sys.path.insert(0, os.getcwd())  # as `python -m` does
settings = confine(parse_settings(sys.argv[2:]))
def attempt(what):
    try:
        return str(what())
    except OSError as error:
        return type(error).__name__
def bind():
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(settings.socket))
        return "ok"
def tcp():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
        return "ok"
given = json.loads(sys.argv[1])
answers = {path: attempt(Path(path).read_text) for path in given["read"]}
answers |= {
    "status": Path("/proc/self/status").read_text(),
    "write state": attempt(lambda: (settings.state_dir / "journal").write_text("x")),
    "write elsewhere": attempt(lambda: Path(given["elsewhere"]).write_text("x")),
    "write certificates": attempt(lambda: (settings.certificates / "node.crt").write_text("x")),
    "certificate": attempt((settings.certificates / "node.crt").read_text),
    "bind": attempt(bind),
    "tcp": attempt(tcp),
    "setuid": attempt(lambda: os.setuid(0)),
    "chroot": attempt(lambda: os.chroot("/")),
    "signal": attempt(lambda: os.kill(given["neighbour"], 0)),
    "module": importlib.import_module("colorsys").__name__,
    "hidden": [importlib.import_module(name).__name__ for name in ("hidden_module", "hidden_package.part")],
    "package": importlib.import_module("concurrent.futures.thread").__name__,
}
def in_thread():
    answers["in a thread"] = attempt(Path(given["elsewhere"]).read_text)
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
print(json.dumps(answers))
"""


@pytest.fixture
def neighbour() -> Iterator[int]:
    """Another process of the same user."""
    with subprocess.Popen(["sleep", "600"], user=UID, group=UID, extra_groups=[]) as process:
        yield process.pid
        process.kill()


def attempts(
    root: Path, neighbour: int, *arguments: str, read: list[Path], writers_of_certificates: int = 0
) -> dict[str, Any]:
    """Make a manager's place in `root`, and in it a process that gives up root and then tries things."""
    for name, owner in (("swarm/raft", UID), ("swarm/certificates", writers_of_certificates), ("run", UID)):
        (root / name).mkdir(parents=True)
        os.chown(root / name, owner, UID)
        (root / name).chmod(0o750)
    certificate = root / "swarm/certificates/node.crt"
    certificate.write_text("certificate")
    os.chown(certificate, writers_of_certificates, UID)
    certificate.chmod(0o640)
    elsewhere = root / "elsewhere"
    elsewhere.write_text("of others")
    elsewhere.chmod(0o666)
    code = root / "private" / "code"  # as Python's or Shoal's own place may be, below /root
    (code / "hidden_package").mkdir(parents=True, mode=0o700)
    for name in ("hidden_module.py", "hidden_package/__init__.py", "hidden_package/part.py"):
        (code / name).touch()
    for path in (code, code / "hidden_package"):
        path.chmod(0o755)
    code.parent.chmod(0o700)
    given = {
        "read": [str(path) for path in (*read, elsewhere)],
        "elsewhere": str(elsewhere),
        "neighbour": neighbour,
    }
    done = subprocess.run(
        [
            *(sys.executable, "-c", _TRIAL, json.dumps(given), f"--user={UID}:{UID}", "--node-id=n"),
            *(f"--state-dir={root / 'swarm/raft'}", f"--certificates={root / 'swarm/certificates'}"),
            *(f"--socket={root / 'run/m.sock'}", "--listen=127.0.0.1:2377", *arguments),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(code), str(SHOAL)])},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def status(text: str) -> dict[str, str]:
    """/proc/PID/status, by name."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["open", "below a directory of root's"])
def test_only_its_own_files_are_left_to_a_manager(tmp_path: Path, neighbour: int, mode: int) -> None:
    for parent in (*tmp_path.parents[:2], tmp_path):  # pytest makes them for root alone
        parent.chmod(0o755)
    root = tmp_path / "place"
    root.mkdir(mode=mode)
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    shadow, environ = Path("/etc/shadow"), Path(f"/proc/{os.getpid()}/environ")
    found = attempts(root, neighbour, read=[secret, shadow, environ])
    assert found["certificate"] == "certificate"
    assert (found["write state"], found["bind"], found["tcp"]) == ("1", "ok", "ok")
    assert found["hidden"] == ["hidden_module", "hidden_package.part"]
    assert (found["module"], found["package"]) == ("colorsys", "concurrent.futures.thread")
    for denied in (secret, shadow, environ, "write certificates", "setuid", "chroot"):
        assert found[str(denied)] == "PermissionError", denied
    if landlock.version() >= 1:
        for denied in (root / "elsewhere", "write elsewhere", "in a thread"):
            assert found[str(denied)] == "PermissionError", denied
    if landlock.version() >= 6:
        assert found["signal"] == "PermissionError"
    lines = status(found["status"])
    assert lines["Uid"].split() == lines["Gid"].split() == [str(UID)] * 4
    assert lines["Groups"] == ""
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(lines[capabilities], 16) == 0
    assert lines["NoNewPrivs"] == "1"
    assert lines["Umask"] == "0077"


def test_a_founder_writes_its_own_certificates(tmp_path: Path, neighbour: int) -> None:
    found = attempts(tmp_path, neighbour, "--init", read=[], writers_of_certificates=UID)
    assert found["write certificates"] == "1"


def test_without_root_to_give_up_it_does_not_run() -> None:
    script = "import sys; from manager.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-c",
                script,
                f"--user={UID}:{UID}",
                "--node-id=n",
                "--state-dir=/tmp/none/raft",
            ),
            *("--socket=/tmp/none/m.sock", "--listen=127.0.0.1:2377"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "can't give up root" in done.stderr


def test_code_that_only_root_may_read_is_told(tmp_path: Path) -> None:
    """As an installation under a umask of 077 leaves it: modules that are imported late would be missing."""
    for name in ("cluster", "manager"):
        shutil.copytree(SHOAL / name, tmp_path / "code" / name)
    (tmp_path / "code").chmod(0o700)
    (tmp_path / "raft").mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "manager", f"--user={UID}:{UID}", "--node-id=n"),
            *(
                f"--state-dir={tmp_path / 'raft'}",
                f"--socket={tmp_path / 'm.sock'}",
                "--listen=127.0.0.1:2377",
            ),
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "code")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"can't read {tmp_path / 'code'}: make it readable" in done.stderr
