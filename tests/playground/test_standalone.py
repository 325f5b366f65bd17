"""`docker run` and its kin on one host that is in no cluster: each by its effect."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, docker_cli, eventually, playground
from tests.support.remains import end_daemon, remains

pytestmark = pytest.mark.playground


@pytest.fixture(scope="module")
def lone(docker_command: None, archive: Path) -> Iterator[Cluster]:
    """A plain engine with an image."""
    with playground(hosts=1, managers=0) as cluster:
        cluster.load(archive)
        yield cluster


@pytest.fixture
def engine(lone: Cluster) -> Iterator[Cluster]:
    """Emptied after each test."""
    yield lone
    names = lone.docker("ps", "-aq").split()
    if names:
        lone.docker("rm", "-fv", *names)


def run(engine: Cluster, *words: str, stdin: str | None = None) -> str:
    """`docker run --rm … busybox …`: its output."""
    return engine.docker("run", "--rm", *words, stdin=stdin)


def start(engine: Cluster, name: str, *words: str, command: Sequence[str] = ("sleep", "1000")) -> str:
    """A container in the background; its id."""
    return engine.docker("run", "-d", "--name", name, *words, "busybox", *command)


def inspect(engine: Cluster, name: str, template: str) -> str:
    return engine.docker("inspect", "--format", template, name)


class Terminal:
    """The docker command on a terminal."""

    def __init__(self, engine: Cluster, *words: str) -> None:
        host = engine.playground.host("host1").docker_host
        self.said = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execv(docker_cli() or "docker", ["docker", "--host", host, *words])

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def until(self, pattern: str) -> str:
        """Read until the pattern is seen."""
        deadline = time.monotonic() + 20
        while not re.search(pattern, self.said):
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} was not seen in {self.said!r}"
            try:
                self.said += os.read(self._fd, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(f"{pattern!r} was not seen in {self.said!r}") from None
        return self.said

    def end(self) -> int:
        """Read to the end; the exit status."""
        while True:
            try:
                if not os.read(self._fd, 4096):
                    break
            except OSError:
                break
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


# --- streams and exit codes ----------------------------------------------------------------------------


def test_output_input_and_exit_codes(engine: Cluster) -> None:
    done = engine.attempt("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
    assert run(engine, "-i", "busybox", "sh", "-c", "read a; echo got $a; cat", stdin="one\ntwo\n") == (
        "got one\ntwo"
    )
    big = "x" * 300_000
    assert len(run(engine, "-i", "busybox", "cat", stdin=big)) == len(big)
    assert engine.attempt("run", "--rm", "busybox", "no-such-command").returncode == 127
    assert engine.attempt("run", "--rm", "busybox", "/etc").returncode == 126
    assert engine.attempt("run", "--rm", "busybox", "sh", "-c", "kill -TERM $$").returncode in (0, 143)
    assert engine.docker("ps", "-aq") == ""
    refused = engine.refused("run", "--rm", "--name", "-x", "busybox")
    assert "Invalid container name" in refused or "invalid" in refused.lower()


def test_a_terminal_is_sized_detached_from_and_attached_to(engine: Cluster) -> None:
    terminal = Terminal(engine, "run", "-it", "--name", "shell", "busybox", "sh")
    terminal.until("# ")
    terminal.type("tty; echo $TERM; A=kept\n")
    terminal.until(r"/dev/pts/0\r\nxterm")
    terminal.type("\x10\x11")
    assert terminal.end() == 0
    assert inspect(engine, "shell", "{{.State.Status}}") == "running"
    engine.client().api.resize("shell", height=33, width=99)
    again = Terminal(engine, "attach", "shell")
    again.type("stty size; echo $A\n")
    again.until(r"kept\r\n")
    again.type("exit 9\n")
    assert again.end() == 9


def test_signals_reach_the_container(engine: Cluster) -> None:
    host = engine.playground.host("host1").docker_host
    words = [
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done",
    ]
    client = subprocess.Popen(
        [docker_cli() or "docker", "--host", host, *words], stdout=subprocess.PIPE, text=True
    )
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.wait(20) == 5


# --- settings by their effect --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "script", "said"),
    [
        (("-e", "COLOUR=blue", "-e", "EMPTY="), 'echo "$COLOUR-$EMPTY-"', "blue--"),
        (("--user", "www-data:users", "--group-add", "nobody"), "id", "uid=33(www-data) gid=100(users)"),
        (("--workdir", "/made/here"), "pwd", "/made/here"),
        (("--hostname", "box", "--domainname", "example.org"), "hostname", "box"),
        (("--add-host", "db:10.1.2.3"), "grep 10.1.2.3 /etc/hosts", "db"),
        (("--dns", "10.9.9.9", "--dns-search", "corp.example"), "cat /etc/resolv.conf", "10.9.9.9"),
        (("--read-only",), "touch /x 2>&1", "Read-only"),
        (("--tmpfs", "/scratch:size=1m,mode=700"), "df -k /scratch | tail -1", "1024"),
        (("--ulimit", "nofile=77:88"), "ulimit -n; ulimit -Hn", "77\n88"),
        (("--sysctl", "net.ipv4.ip_forward=0"), "cat /proc/sys/net/ipv4/ip_forward", "0"),
        (("--shm-size", "2m"), "df -k /dev/shm | tail -1", "2048"),
        (("--cap-drop", "ALL"), "grep CapBnd /proc/self/status", "0000000000000000"),
        (("--security-opt", "no-new-privileges"), "grep NoNewPrivs /proc/self/status", "1"),
        (("--security-opt", "seccomp=unconfined"), "grep Seccomp: /proc/self/status", "0"),
        (("--init",), "cat /proc/1/cmdline", "init"),
        (("--network", "none"), "ls /sys/class/net", "lo"),
        (("--network", "host"), "hostname", "host1"),
        (("--pid", "host"), "ls -d /proc/1/ns; cat /proc/1/cmdline | tr '\\0' ' '", "supervisor"),
        (("--uts", "host"), "hostname", "host1"),
        (("--entrypoint", "echo"), "", "-c"),
        (("--privileged",), "grep Seccomp: /proc/self/status; ls /dev | wc -l", "0"),
        (("--device", "/dev/null:/dev/nothing"), "echo x > /dev/nothing && ls -l /dev/nothing", "1,   3"),
        (("--oom-score-adj", "100"), "cat /proc/self/oom_score_adj", "100"),
    ],
    ids=lambda value: value[0].lstrip("-") if isinstance(value, tuple) else "",
)  # fmt: skip
def test_settings(engine: Cluster, flags: tuple[str, ...], script: str, said: str) -> None:
    done = engine.attempt("run", "--rm", *flags, "busybox", *(("sh", "-c", script) if script else ("-c",)))
    assert said in done.stdout, done


def test_limits_are_set_and_updated(engine: Cluster) -> None:
    container = start(engine, "small", "--memory", "32m", "--cpus", "0.5", "--pids-limit", "20")
    assert limit(engine, container, "memory") == str(32 << 20)
    assert limit(engine, container, "cpu") == "50000"
    assert limit(engine, container, "pids") == "20"
    engine.docker("update", "--memory", "48m", "--memory-swap", "-1", "--pids-limit", "30", "small")
    assert limit(engine, container, "memory") == str(48 << 20)
    assert limit(engine, container, "pids") == "30"
    assert inspect(engine, "small", "{{.HostConfig.Memory}}") == str(48 << 20)
    assert engine.attempt("run", "--rm", "-m", "32m", "busybox", "tail", "/dev/zero").returncode == 137
    assert "Minimum memory limit" in engine.refused("run", "--rm", "-m", "1m", "busybox")


def limit(engine: Cluster, container: str, what: str) -> str:
    """A limit as the container's control group has it, in either version."""
    files = {
        "memory": ("memory.max", "memory.limit_in_bytes"),
        "cpu": ("cpu.max", "cpu.cfs_quota_us"),
        "pids": ("pids.max", "pids.max"),
    }[what]
    script = f"cat $(find /sys/fs/cgroup -path '*{container}/{files[0]}' -o -path '*{container}/{files[1]}')"
    return engine.playground.run("host1", ["sh", "-c", script], 10).stdout.split()[0]


def test_volumes_and_binds(engine: Cluster) -> None:
    shared = engine.playground.layout.home("host1") / "shared"
    shared.mkdir(exist_ok=True)
    (shared / "greeting").write_text("hello\n")
    script = "cat /s/greeting; touch /s/x 2>&1 || :"
    said = run(engine, "-v", f"{shared}:/s:ro", "busybox", "sh", "-c", script)
    assert said == "hello\ntouch: /s/x: Read-only file system"
    assert run(engine, "-v", f"{shared}/made:/m", "busybox", "touch", "/m/file") == ""
    assert (shared / "made" / "file").exists()
    run(engine, "-v", "data:/etc", "busybox", "sh", "-c", "echo kept > /etc/note")
    assert run(engine, "--mount", "type=volume,source=data,target=/d", "busybox", "cat", "/d/note") == "kept"
    assert "root" in run(engine, "-v", "data:/d", "busybox", "cat", "/d/passwd")  # filled from the image
    start(engine, "lender", "-v", "/anonymous", "-v", "data:/d")
    assert "note" in run(engine, "--volumes-from", "lender:ro", "busybox", "ls", "/d")
    assert "in use" in engine.refused("volume", "rm", "data")
    volumes = engine.docker("volume", "ls", "-q").split()
    engine.docker("rm", "-fv", "lender")
    assert engine.docker("volume", "ls", "-q").split() == ["data"] != volumes
    run(engine, "-v", "/gone", "busybox", "true")
    assert engine.docker("volume", "ls", "-q").split() == ["data"]
    engine.docker("volume", "rm", "data")


# --- networks ------------------------------------------------------------------------------------------


def test_ports_and_networks(engine: Cluster) -> None:
    server = ("sh", "-c", "echo served > /index.html; httpd -f -p 80 -h /")
    start(engine, "web", "-p", "8080:80", command=server)
    assert eventually("it is served", lambda: fetched(engine, 8080)) == "served"
    assert engine.docker("port", "web") == "80/tcp -> 0.0.0.0:8080"
    assert "already allocated" in engine.refused("run", "--rm", "-p", "8080:80", "busybox", "true")
    engine.docker("stop", "-t", "0", "web")
    run(engine, "-p", "8080:80", "busybox", "true")  # the port is free again
    engine.docker("start", "web")
    assert eventually("it is served again", lambda: fetched(engine, 8080)) == "served"
    start(engine, "any", "-p", "80", "-p", "9000-9005:81")
    ports = engine.docker("port", "any")
    assert re.search(r"80/tcp -> 0.0.0.0:\d+", ports)
    assert "81/tcp -> 0.0.0.0:9000" in ports
    assert run(engine, "--network", "container:web", "busybox", "wget", "-qO-", "127.0.0.1") == "served"
    script = "wget -qO- site; echo $SITE_NAME"
    said = run(engine, "--name", "caller", "--link", "web:site", "busybox", "sh", "-c", script)
    assert said.split() == ["served", "/caller/site"]


def fetched(engine: Cluster, port: int) -> str:
    """What the published port answers, or nothing."""
    try:
        return engine.fetch("host1", port).strip()
    except AssertionError:
        return ""


def test_a_network_of_the_users_own(engine: Cluster) -> None:
    engine.docker("network", "create", "--subnet", "10.77.0.0/24", "back")
    start(engine, "db", "--network", "back", "--network-alias", "store", "--ip", "10.77.0.9")
    assert inspect(engine, "db", "{{.NetworkSettings.Networks.back.IPAddress}}") == "10.77.0.9"
    ping = ("ping", "-c1", "-W2")
    for name in ("db", "store"):
        assert "10.77.0.9" in run(engine, "--network", "back", "busybox", *ping, name)
    start(engine, "late")
    engine.docker("network", "connect", "--alias", "tardy", "back", "late")
    assert "10.77.0.9" in engine.docker("exec", "late", *ping, "db")
    assert "bytes from" in engine.docker("exec", "db", *ping, "tardy")
    engine.docker("network", "disconnect", "back", "late")
    assert engine.attempt("exec", "late", *ping, "10.77.0.9").returncode != 0
    engine.docker("network", "connect", "back", "late")
    engine.docker("restart", "-t", "0", "late")  # its networks are kept
    assert "10.77.0.9" in engine.docker("exec", "late", *ping, "db")
    assert "active endpoints" in engine.refused("network", "rm", "back")
    engine.docker("rm", "-f", "db", "late")
    engine.docker("network", "rm", "back")
    assert "back" in engine.refused("run", "--rm", "--network", "back", "busybox", "true")


# --- exec ----------------------------------------------------------------------------------------------


def test_exec(engine: Cluster) -> None:
    start(engine, "box", "-e", "A=1")
    done = engine.attempt("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 4")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 4)
    script = "echo $A$B $(id -un) $PWD $HOME"
    said = engine.docker("exec", "-e", "B=2", "-u", "www-data", "-w", "/var", "box", "sh", "-c", script)
    assert said == "12 www-data /var /var/www"
    assert engine.docker("exec", "-i", "box", "cat", stdin="typed") == "typed"
    assert engine.attempt("exec", "box", "no-such").returncode == 127
    assert engine.attempt("exec", "box", "/etc").returncode == 126
    engine.docker("exec", "-d", "box", "sh", "-c", "echo later > /tmp/later")
    eventually("it ran", lambda: engine.attempt("exec", "box", "cat", "/tmp/later").stdout == "later\n")
    plain = engine.docker("exec", "box", "grep", "CapEff", "/proc/self/status")
    assert plain != engine.docker("exec", "--privileged", "box", "grep", "CapEff", "/proc/self/status")
    terminal = Terminal(engine, "exec", "-it", "box", "sh")
    terminal.until("# ")
    terminal.type("tty; exit 6\n")
    terminal.until("/dev/pts/")
    assert terminal.end() == 6
    left = Terminal(engine, "exec", "-it", "box", "sh", "-c", "sleep 1; echo still > /tmp/here; sleep 50")
    eventually("it runs", lambda: "echo still" in engine.docker("top", "box"))
    left.type("\x10\x11")
    left.end()
    eventually("it goes on", lambda: engine.attempt("exec", "box", "cat", "/tmp/here").stdout == "still\n")
    api = engine.client().api
    made = api.exec_create("box", ["sleep", "100"])["Id"]
    api.exec_start(made, detach=True)
    assert api.exec_inspect(made)["Running"]
    assert made in api.inspect_container("box")["ExecIDs"]
    engine.docker("pause", "box")
    assert "paused" in engine.refused("exec", "box", "true")
    engine.docker("unpause", "box")
    engine.docker("stop", "-t", "0", "box")
    eventually("the exec has ended too", lambda: not api.exec_inspect(made)["Running"])
    assert "is not running" in engine.refused("exec", "box", "true")


# --- life ----------------------------------------------------------------------------------------------


def test_life_from_create_to_prune(engine: Cluster) -> None:
    container = engine.docker("create", "--name", "one", "--label", "keep", "busybox", "sleep", "1000")
    assert inspect(engine, container[:12], "{{.State.Status}} {{.State.StartedAt}}") == (
        "created 0001-01-01T00:00:00Z"
    )
    assert "already in use" in engine.refused("create", "--name", "one", "busybox")
    engine.docker("start", "one")
    engine.docker("rename", "one", "two")
    assert engine.docker("ps", "--format", "{{.Names}}") == "two"
    assert "container is running" in engine.refused("rm", "two")
    engine.docker("pause", "two")
    assert "(Paused)" in engine.docker("ps", "--format", "{{.Status}}")
    engine.docker("unpause", "two")
    assert "sleep 1000" in engine.docker("top", "two")
    stats = engine.docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}")
    assert stats == "two 1"
    host = engine.playground.host("host1").docker_host
    waiting = subprocess.Popen(
        [docker_cli() or "docker", "--host", host, "wait", "two"], stdout=subprocess.PIPE, text=True
    )
    with waiting:
        engine.docker("kill", "two")
        assert waiting.stdout is not None
        assert waiting.stdout.read().strip() == "137"
    assert engine.docker("ps", "-a", "--filter", "exited=137", "--format", "{{.Names}}") == "two"
    assert engine.docker("container", "prune", "-f", "--filter", "label!=keep") == "Total reclaimed space: 0B"
    assert container in engine.docker("container", "prune", "-f")
    assert "No such container" in engine.refused("start", "two")


def test_logs_are_followed_to_the_end(engine: Cluster) -> None:
    start(engine, "talker", command=("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"))
    assert engine.docker("logs", "-f", "talker") == "1\n2\n3"
    assert engine.docker("logs", "--tail", "1", "talker") == "3"
    start(engine, "silent", "--log-driver", "none")
    assert "does not support reading" in engine.refused("logs", "silent")


def test_files_go_in_and_out(engine: Cluster, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_text("content")
    (tree / "link").symlink_to("deep/file")
    engine.docker("create", "--name", "box", "-v", "data:/data", "busybox", "sh", "-c", "cat /data/tree/link")
    engine.docker("cp", str(tree), "box:/data")
    engine.docker("cp", str(tree), "box:/srv/renamed")
    assert engine.docker("start", "-a", "box") == "content"
    engine.docker("cp", "box:/srv/renamed", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "file").read_text() == "content"
    assert (tmp_path / "back" / "link").readlink() == Path("deep/file")
    assert "Could not find the file" in engine.refused("cp", "box:/no/such", str(tmp_path))
    changed = engine.docker("diff", "box").splitlines()
    assert {"A /srv/renamed", "C /srv", "A /srv/renamed/deep/file"} <= set(changed)
    assert not [line for line in changed if "/etc" in line]
    start(engine, "live", "-v", "data:/data")
    assert engine.docker("exec", "live", "cat", "/data/tree/link") == "content"
    engine.docker("exec", "live", "ln", "-s", "/etc", "/data/out")
    engine.docker("cp", str(tree / "deep" / "file"), "live:/data/out/new")  # the container's /etc, not ours
    assert engine.docker("exec", "live", "cat", "/etc/new") == "content"
    assert not Path("/etc/new").exists()
    engine.docker("export", "-o", str(tmp_path / "box.tar"), "live")
    listed = subprocess.check_output(["tar", "tf", tmp_path / "box.tar"], text=True)
    assert "etc/new\n" in listed
    engine.docker("rm", "-f", "live", "box")
    engine.docker("volume", "rm", "data")


# --- restarts, and the daemon's own --------------------------------------------------------------------


def test_restart_policies(engine: Cluster) -> None:
    fails = ("sh", "-c", "exit 7")
    start(engine, "thrice", "--restart", "on-failure:2", command=fails)
    eventually(
        "it gives up", lambda: inspect(engine, "thrice", "{{.RestartCount}} {{.State.Status}}") == "2 exited"
    )
    start(engine, "well", "--restart", "on-failure", command=("true",))
    start(engine, "ever", "--restart", "always", command=fails)
    eventually("it restarts", lambda: int(inspect(engine, "ever", "{{.RestartCount}}")) >= 2)
    waiting = ("ps", "--filter", "status=restarting", "--format", "{{.Status}}")
    eventually("it is seen waiting", lambda: "Restarting (7)" in engine.docker(*waiting))
    engine.docker("stop", "ever")
    assert inspect(engine, "ever", "{{.State.Status}}") == "exited"
    assert inspect(engine, "well", "{{.RestartCount}}") == "0"
    assert "can't create 'AutoRemove'" in json.dumps(
        engine.curl(
            "host1",
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}},
        )
    )


def test_containers_outlive_the_daemon_and_nothing_is_left(engine: Cluster) -> None:
    place = engine.playground
    engine.docker("network", "create", "back")
    run(engine, "--network", "back", "busybox", "true")
    before = remains(engine, "host1")
    start(
        engine,
        "lives",
        "-p",
        "8080:80",
        "--network",
        "back",
        command=("httpd", "-f", "-p", "80", "-h", "/etc"),
    )
    start(engine, "gone", "--rm", "-p", "8081:80", command=("sh", "-c", "sleep 1"))
    start(engine, "again", "--restart", "unless-stopped", "-p", "8082:80", command=("sh", "-c", "sleep 1"))
    start(engine, "stopped", "--restart", "unless-stopped")
    engine.docker("stop", "-t", "0", "stopped")
    start(engine, "always", "--restart", "always")
    engine.docker("stop", "-t", "0", "always")
    born = inspect(engine, "lives", "{{.State.StartedAt}}")
    end_daemon(engine, "host1")
    place.run("host1", ["sleep", "1.2"], 10)
    assert "root" in fetched_file(engine, 8080)  # served without the daemon
    place.restart_daemon("host1")
    eventually("it runs again", lambda: inspect(engine, "again", "{{.State.Status}}") == "running")
    eventually("it is removed", lambda: "gone" not in engine.docker("ps", "-a", "--format", "{{.Names}}"))
    eventually("as it says", lambda: inspect(engine, "always", "{{.State.Status}}") == "running")
    assert inspect(engine, "stopped", "{{.State.Status}}") == "exited"
    assert inspect(engine, "lives", "{{.State.StartedAt}} {{.State.Status}}") == f"{born} running"
    assert engine.docker("exec", "lives", "echo", "hello") == "hello"
    place.kill("host1")
    place.start("host1")
    eventually("it is back", lambda: engine.attempt("ps").returncode == 0)
    eventually("policies hold", lambda: inspect(engine, "always", "{{.State.Status}}") == "running")
    assert inspect(engine, "lives", "{{.State.Status}}") == "exited"
    engine.docker("start", "lives")
    assert "root" in fetched_file(engine, 8080)
    engine.docker("rm", "-fv", "lives", "again", "stopped", "always")
    end_daemon(engine, "host1")
    place.restart_daemon("host1")
    eventually("nothing is left", lambda: not remains(engine, "host1") - before, seconds=20)
    engine.docker("network", "rm", "back")


def fetched_file(engine: Cluster, port: int) -> str:
    return eventually("it is served", lambda: engine.fetch("host1", port, "/passwd"))


def test_the_containers_of_services(cluster: Cluster, tmp_path: Path) -> None:
    cluster.docker("secret", "create", "key", "-", stdin="hush")
    (task,) = cluster.run("web", "--secret", "key")
    host, name = cluster.host_of(task), f"web.1.{task['ID']}"
    assert cluster.docker("exec", name, "cat", "/run/secrets/key", host=host) == "hush"
    (tmp_path / "file").write_text("in")
    cluster.docker("cp", str(tmp_path / "file"), f"{name}:/tmp/", host=host)
    assert cluster.docker("exec", name, "cat", "/tmp/file", host=host) == "in"
    assert "sleep" in cluster.docker("top", name, host=host)
    assert name in cluster.docker("stats", "--no-stream", "--format", "{{.Name}}", name, host=host)
    assert "by its service only" in cluster.refused("update", "--memory", "64m", name, host=host)
    cluster.docker("rm", "-f", name, host=host)
    cluster.replaced("web", task)
    assert cluster.docker("run", "--rm", "busybox", "echo", "mine", host=host) == "mine"
