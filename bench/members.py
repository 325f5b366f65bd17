"""Three managers' Raft and store in processes of their own, over real TLS on loopback and a real disk."""

import json
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.raft_member import Birth
from tests.fakes.raft import CLUSTER, Authority

ANSWER_SECONDS = 300.0


Start = Callable[[str, Sequence[str], dict[str, Any]], "subprocess.Popen[str]"]
"""Starts a member's command where that member lives; the last are options of Popen."""


def start_here(node_id: str, command: Sequence[str], options: dict[str, Any]) -> "subprocess.Popen[str]":
    """Start it as a child like any other."""
    return subprocess.Popen(command, text=True, **options)


class MemberProcess:
    """One member; `ask` runs one of its operations."""

    def __init__(self, birth: Birth, start: Start) -> None:
        self.node_id = birth.node_id
        self.address = birth.address
        self.birth = birth
        self._start = start
        self.process: subprocess.Popen[str]
        self.started: dict[str, Any] = {}
        self._log = Path(birth.directory + ".log")

    def start(self) -> None:
        """Start the process, and wait until it has recovered what it has on disk."""
        command = [sys.executable, "-m", "bench.raft_member"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with self._log.open("a") as log:
            self.process = self._start(self.node_id, command, pipes | {"stderr": log})
        self.send_line(asdict(self.birth))
        self.started = self.answer()

    def send_line(self, content: object) -> None:
        """One line of JSON."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(content) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer. Raises TimeoutError; OSError when the process has ended."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise TimeoutError(f"{self.node_id} does not answer")
        line = self.process.stdout.readline()
        if not line:
            said = self._log.read_text()[-2000:]
            raise OSError(f"{self.node_id} ended: status {self.process.wait()}: {said}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise OSError(f"{self.node_id}: {found['error']}")
        return found

    def ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        """Run an operation to its end."""
        self.send_line([operation, arguments])
        return self.answer()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Let it stop by itself."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Members:
    """A cluster of member processes."""

    def __init__(
        self,
        directory: Path,
        limits: dict[str, int],
        start: Start = start_here,
        address: Callable[[str], str] = lambda node_id: f"127.0.0.1:{free_port()}",
    ) -> None:
        """address: where a node's port is; node ids are m1, m2 and so on."""
        self.directory = directory
        self._start, self._address = start, address
        self._limits = limits
        self._authority = Authority()
        self.all: list[MemberProcess] = []

    def join(self) -> MemberProcess:
        """Start another one and make it a member."""
        member = self.prepare()
        member.start()
        self.admit(member)
        return member

    def prepare(self) -> MemberProcess:
        """One more, not yet started."""
        node_id = f"m{len(self.all) + 1}"
        tls = self._authority.issue(node_id)
        peers = {member.node_id: member.address for member in self.all}
        pem = (tls.certificate.decode(), tls.key.decode(), tls.ca.decode())
        place = str(self.directory / node_id)
        birth = Birth(node_id, CLUSTER, self._address(node_id), place, *pem, peers, self._limits)
        member = MemberProcess(birth, self._start)
        self.all.append(member)
        return member

    def admit(self, member: MemberProcess) -> None:
        """Let the leader add a started one."""
        if len(self.all) > 1:
            self.leader().ask("add", node_id=member.node_id, address=member.address)
        else:
            member.ask("barrier")

    def leader(self) -> MemberProcess:
        """The member that leads; waits for one."""
        while True:
            for member in self.all:
                if member.process.poll() is None and member.ask("status")["leader"] == member.node_id:
                    return member
            time.sleep(0.05)


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def members(count: int, **limits: int) -> Iterator[Members]:
    """A new cluster of that many on loopback; gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="shoal-bench-"))
    try:
        with running(Members(directory, limits), count) as cluster:
            yield cluster
    finally:
        shutil.rmtree(directory)


@contextmanager
def running(cluster: Members, count: int) -> Iterator[Members]:
    """Let so many join; in the end they are ended."""
    try:
        for _ in range(count):
            cluster.join()
        yield cluster
    finally:
        for member in cluster.all:
            if hasattr(member, "process"):
                member.end()
