"""Hosts on one underlay, each a pair of namespaces with its own network plane, for the tests of netplane."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from cluster.dataplane import DataplaneChanges
from netplane.model import SandboxSpec
from netplane.netns import enter_namespace
from tests.host.netplane import peer

REPOSITORY = Path(__file__).resolve().parents[2]
_SCRIPTS = REPOSITORY / "tests" / "host" / "netplane"


class PlaneError(Exception):
    """The plane raised; `kind` is the name of its error class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Lab:
    """All that a test starts; `close` ends it, and with it every namespace."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[Any]] = []
        self._hosts = 0
        self.underlay = self.namespace()
        self.run(self.underlay, "ip link add br0 type bridge && ip link set br0 up && ip link set lo up")

    def spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """A process that the lab ends."""
        process = subprocess.Popen(command, **options)
        self._processes.append(process)
        return process

    def namespace(self) -> int:
        """The pid of a process that holds a network and a mount namespace."""
        holder = self.spawn(
            ["unshare", "--net", "--mount", "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        return holder.pid

    def run(self, pid: int, script: str, *, netns: str = "", check: bool = True) -> str:
        """A shell script in a host's namespaces, or in a sandbox of it."""
        done = subprocess.run(
            self.inside(pid, ["sh", "-c", script], netns), capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def inside(self, pid: int, command: Sequence[str], netns: str = "") -> list[str]:
        """The command line that runs `command` in a host's namespaces, or in a sandbox of it."""
        enter = ["nsenter", "-t", str(pid), "-m", "-n"]
        return [*enter, *(["nsenter", f"--net={netns}"] if netns else []), *command]

    def plug(self, pid: int, address: str) -> None:
        """Give a namespace an eth0 on the underlay."""
        self._hosts += 1
        port = f"p{self._hosts}"
        self.run(
            self.underlay,
            f"ip link add {port} type veth peer name eth0 netns {pid} && ip link set {port} master br0 up",
        )
        self.run(pid, f"ip link set lo up && ip addr add {address} dev eth0 && ip link set eth0 up")

    def peer(self, pid: int, verb: str, *words: Any, netns: str = "") -> Any:
        """What one of peer.py's clients finds, in a thread of this process that joins the namespace."""
        work = {"ask": peer.ask, "resolve": peer.resolve}[verb]
        path = f"/proc/{pid}/root{netns}" if netns else f"/proc/{pid}/ns/net"

        def run() -> Any:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                enter_namespace(descriptor)
            finally:
                os.close(descriptor)
            return work(*words)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()

    def begin(self, pid: int, *words: object, netns: str = "") -> subprocess.Popen[str]:
        """Start peer.py; its JSON value comes on stdout."""
        command = [sys.executable, str(_SCRIPTS / "peer.py"), *map(str, words)]
        return self.spawn(self.inside(pid, command, netns), stdout=subprocess.PIPE, text=True)

    def serve(self, pid: int, name: str, netns: str = "", port: int = 80, verb: str = "serve") -> None:
        """Start one of peer.py's servers and wait until it listens."""
        process = self.begin(pid, verb, name, port, netns=netns)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "ready"

    def host(self, name: str, address: str, cgroup: str = "") -> "Host":
        """A new host on the underlay, its plane started. Args: cgroup: that of its containers."""
        host = Host(self, name, address, cgroup)
        host.start_plane()
        return host

    def close(self) -> None:
        """End every process, the last first."""
        for process in reversed(self._processes):
            process.kill()
        for process in reversed(self._processes):
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


class Host:
    """One host. Its namespaces outlive its plane, as a machine outlives a daemon."""

    def __init__(self, lab: Lab, name: str, address: str, cgroup: str = "") -> None:
        self.lab = lab
        self.cgroup = cgroup
        self.name = name
        self.address = address
        self.pid = lab.namespace()
        lab.plug(self.pid, f"{address}/24")
        self.directory = lab.directory / name
        self._plane: subprocess.Popen[bytes] | None = None

    def start_plane(self) -> None:
        """Start the daemon."""
        command = [
            sys.executable,
            "-W",
            "error",
            str(_SCRIPTS / "host_process.py"),
            str(self.directory / "state"),
            str(self.directory / "run"),
            self.name,
            self.cgroup,
        ]
        self._plane = self.lab.spawn(
            self.lab.inside(self.pid, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        self.call("start")

    def kill_plane(self) -> None:
        """kill -9 of the daemon; the kernel's state stays."""
        assert self._plane is not None
        self._plane.kill()
        self._plane.wait()

    def call(self, verb: str, *arguments: object) -> Any:
        """Call the plane; raises PlaneError."""
        self.tell(verb, *arguments)
        assert self._plane is not None
        assert self._plane.stdout is not None
        line = self._plane.stdout.readline()
        assert line, f"the plane of {self.name} died"
        reply = json.loads(line)
        if "error" in reply:
            raise PlaneError(reply["error"], reply["message"])
        return reply["ok"]

    def tell(self, verb: str, *arguments: object) -> None:
        """Call the plane, and don't wait for what it says."""
        assert self._plane is not None
        assert self._plane.stdin is not None
        self._plane.stdin.write(json.dumps([verb, *arguments]).encode() + b"\n")
        self._plane.stdin.flush()

    def create(self, spec: SandboxSpec) -> dict[str, Any]:
        """Create a sandbox."""
        sandbox: dict[str, Any] = self.call("create", msgspec.json.encode(spec).decode())
        return sandbox

    def apply(self, changes: DataplaneChanges) -> None:
        """Apply records."""
        self.call("apply", msgspec.json.encode(changes).decode())

    def run(self, script: str, netns: str = "", *, check: bool = True) -> str:
        """A shell script on the host or in a sandbox."""
        return self.lab.run(self.pid, script, netns=netns, check=check)

    def links(self) -> set[str]:
        """The names of the host's links."""
        return {each["ifname"] for each in json.loads(self.run("ip -j link"))}


def await_file(path: Path, seconds: float = 10) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)
