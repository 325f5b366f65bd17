"""Looking into a playground's hosts without asking any manager."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from shoal.playground.supervisor import DaemonStatus
from tests.support.cluster import Cluster, Json, eventually

_TALK = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); s.settimeout(10)
print("open", flush=True)
for line in sys.stdin:
    s.sendall(line.encode())
    answer = b""
    while not answer.endswith(b"\\n"):
        piece = s.recv(1000)
        if not piece:
            sys.exit("cut")
        answer += piece
    print(answer.decode(), end="", flush=True)
"""


@dataclass(frozen=True)
class Place:
    """A running container: its host and first process, so that it can be entered while no manager lives."""

    cluster: Cluster
    host: str
    pid: int

    @classmethod
    def of(cls, cluster: Cluster, task: Json) -> "Place":
        return cls(cluster, cluster.host_of(task), int(cluster.container(task)["State"]["Pid"]))

    def enter(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a shell script of the container's own programs."""
        command = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", "-r", "-w", "/bin/sh", "-c"]
        return self.cluster.playground.run(self.host, [*command, "export PATH=/bin; " + script], 30)

    @property
    def lives(self) -> bool:
        return self.cluster.playground.run(self.host, ["test", "-d", f"/proc/{self.pid}"]).returncode == 0

    def connect(self, address: str, port: int) -> "Connection":
        """A connection from the container's network."""
        inside = ["nsenter", "-t", str(self.pid), "-n"]
        return Connection(self.cluster, self.host, inside, address, port)


class Connection:
    """One TCP connection to an echo service, kept open; `say` fails when it was ever cut."""

    def __init__(self, cluster: Cluster, box: str, prefix: list[str], address: str, port: int) -> None:
        command = [*prefix, sys.executable, "-c", _TALK, address, str(port)]
        self._process = cluster.playground.popen(
            box, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if self._line() != "open\n":
            self.close()
            raise ConnectionError(f"{address}:{port} does not answer")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        assert self._line() == word + "\n", f"the connection was cut before {word!r}"

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
        self._process.stderr.close()


def answers(connect: Callable[[], Connection]) -> bool:
    """Whether a new connection is made and echoes."""
    try:
        with connect() as fresh:
            fresh.say("hello")
    except (ConnectionError, AssertionError):
        return False
    return True


def daemon_pid(cluster: Cluster, host: str) -> int:
    """shoald's process in its host; 0 when it does not run."""
    path = cluster.playground.host(host).socket.parent / "daemon.status"
    return msgspec.json.decode(path.read_bytes(), type=DaemonStatus).pid


_MANAGERS = """
cd /proc
for child in $(cat $1/task/*/children); do grep -qzx manager $child/cmdline && echo $child; done
true
"""


def manager_pid(cluster: Cluster, host: str) -> int:
    """The manager process in its host, a child of shoald; 0 when there is none."""
    command = ["sh", "-c", _MANAGERS, "sh", str(daemon_pid(cluster, host))]
    return int(cluster.playground.run(host, command, 10).stdout or 0)


def kill_shoal(cluster: Cluster, host: str) -> None:
    """SIGKILL shoald and the host's manager process, if there is one: nothing is handled any more."""
    processes = [pid for pid in (daemon_pid(cluster, host), manager_pid(cluster, host)) if pid]
    assert len(processes) == (2 if host == "host1" else 1), "host1 has the manager"
    done = cluster.playground.run(host, ["kill", "-KILL", *map(str, processes)], 10)
    assert done.returncode == 0, done.stderr
    eventually(f"shoald of {host} is dead", lambda: not daemon_pid(cluster, host))
