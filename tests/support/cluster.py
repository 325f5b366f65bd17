"""A playground cluster as the tests use it: through the docker CLI, docker-py, and the client outside."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import requests
from docker import DockerClient
from docker.errors import APIError

from shoal.playground.boxes import default_daemon
from shoal.playground.formation import wait_ready
from shoal.playground.layout import CLIENT, Settings
from shoal.playground.playground import Playground

T = TypeVar("T")
Json = dict[str, Any]

DEFAULT_SECONDS = 40.0
"""How long anything may take that takes a second or two on an idle machine."""

_RETRIED = (APIError, requests.exceptions.RequestException)


class CommandFailed(AssertionError):
    """A docker command ended with an error; the message is its output."""


def docker_cli() -> str | None:
    """The docker command of this machine, if it has one."""
    return shutil.which("docker")


def eventually(
    what: str, condition: Callable[[], T], seconds: float = DEFAULT_SECONDS, pause: float = 0.05
) -> T:
    """Ask until the condition's value is true, and return it; errors of the API count as "not yet"."""
    deadline = time.monotonic() + seconds
    value: object = None
    while True:
        try:
            if result := condition():
                return result
            value = result
        except _RETRIED as error:
            value = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; at last {value!r}")
        time.sleep(pause)


class Cluster:
    """A running playground."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self._clients: dict[str, DockerClient] = {}
        self._marks: dict[str, int] = {}

    @property
    def hosts(self) -> list[str]:
        """The hosts' names."""
        return [host.name for host in self.playground.hosts()]

    def address(self, host: str) -> str:
        """A host's address on the underlay."""
        return self.playground.host(host).address

    # --- the two clients ----------------------------------------------------------------------------------

    def attempt(
        self, *words: str, host: str = "host1", timeout: float = 60.0, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run the docker CLI against a host; its exit status raises nothing."""
        command = [docker_cli() or "docker", "--host", self.playground.host(host).docker_host, *words]
        return subprocess.run(
            command,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=_ENVIRONMENT,
        )

    def docker(
        self, *words: str, host: str = "host1", timeout: float = 60.0, stdin: str | None = None
    ) -> str:
        """Run the docker CLI against a host and return its output, stripped. Raises CommandFailed."""
        done = self.attempt(*words, host=host, timeout=timeout, stdin=stdin)
        if done.returncode:
            raise CommandFailed(f"docker {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def refused(self, *words: str, host: str = "host1", stdin: str | None = None) -> str:
        """What the docker CLI says to a command that must fail."""
        done = self.attempt(*words, host=host, stdin=stdin)
        assert done.returncode, f"docker {' '.join(words)} should have failed; it said {done.stdout}"
        return done.stderr.strip()

    def inspect(self, kind: str, name: str, host: str = "host1") -> Json:
        """`docker KIND inspect NAME`, the object."""
        found: list[Json] = json.loads(self.docker(kind, "inspect", name, host=host))
        return found[0]

    def client(self, host: str = "host1") -> DockerClient:
        """docker-py for a host; lives as long as the cluster."""
        if host not in self._clients:
            self._clients[host] = DockerClient(
                base_url=self.playground.host(host).docker_host, version="auto", timeout=60
            )
        return self._clients[host]

    def curl(self, host: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """A raw API request through the host's socket: its status, and its JSON (or text)."""
        command = ["curl", "-sS", "-m", "20", "-X", method, "-w", "\n%{http_code}"]
        command += ["--unix-socket", str(self.playground.host(host).socket)]
        if body is not None:
            text = body if isinstance(body, str) else json.dumps(body)
            command += ["-H", "Content-Type: application/json", "--data-binary", text]
        done = subprocess.run([*command, f"http://docker{path}"], capture_output=True, text=True, check=True)
        content, _, status = done.stdout.rpartition("\n")
        try:
            return int(status), json.loads(content)
        except json.JSONDecodeError:
            return int(status), content

    # --- services and their tasks -------------------------------------------------------------------------

    def create(self, name: str, *words: str, image: str = "busybox", host: str = "host1") -> str:
        """`docker service create`, its stop grace shortened (a shell as process 1 ignores SIGTERM).

        Words up to `--` are options, those after it the container's arguments; without `--`, all are options
        and a container of busybox sleeps.
        """
        options, arguments = list(words), ["sleep", "infinity"] if image == "busybox" else []
        if "--" in options:
            split = options.index("--")
            options, arguments = options[:split], options[split + 1 :]
        grace = [] if "--stop-grace-period" in options else ["--stop-grace-period", "200ms"]
        command = ["service", "create", "--detach", "--no-resolve-image", "--name", name]
        return self.docker(*command, *grace, *options, image, *arguments, host=host)

    def run(self, name: str, *words: str, replicas: int = 1, image: str = "busybox") -> list[Json]:
        """`create`, then wait for its tasks to run; returns them."""
        options = list(words)
        if not {"--mode", "--replicas"} & set(options):
            options = ["--replicas", str(replicas), *options]
        self.create(name, *options, image=image)
        return self.running(name, replicas)

    def update(self, name: str, *words: str) -> None:
        """`docker service update`, without waiting for it."""
        self.docker("service", "update", "--detach", "--no-resolve-image", *words, name)

    def replaced(self, service: str, old: Json) -> Json:
        """Wait until another task runs in place of the service's only one, and return it."""

        def others() -> list[Json]:
            return [task for task in self.tasks_in(service, "running") if task["ID"] != old["ID"]]

        return eventually(f"another task of {service} runs", others)[0]

    def replaced_by(self, service: str, old: Json) -> Json:
        """Wait until there is another task in place of the service's only one, and return it."""

        def others() -> list[Json]:
            found = self.tasks(service, **{"desired-state": "running"})
            return [
                task for task in found if task["ID"] != old["ID"] and task["Status"]["State"] != "pending"
            ]

        return eventually(f"there is another task of {service}", others)[0]

    def complaint(self, service: str) -> str:
        """Wait until a task of the service has an error, and return it (of several tasks, all)."""
        words = ("service", "ps", "--no-trunc", "--format", "{{.Error}}", service)
        return eventually(f"a task of {service} has an error", lambda: self.docker(*words))

    def tasks(self, service: str, host: str = "host1", **filters: str) -> list[Json]:
        """The service's tasks as the API tells them, in the order of their creation."""
        found: list[Json] = self.client(host).api.tasks({"service": service, **filters})
        return sorted(found, key=lambda task: task["CreatedAt"])

    def tasks_in(self, service: str, state: str, host: str = "host1") -> list[Json]:
        """The service's tasks that should run and are in that state."""
        found = self.tasks(service, host, **{"desired-state": "running"})
        return [task for task in found if task["Status"]["State"] == state]

    def running(
        self, service: str, count: int, host: str = "host1", seconds: float = DEFAULT_SECONDS
    ) -> list[Json]:
        """Wait until exactly so many of its tasks run, and return them."""
        found: list[Json] = []

        def enough() -> bool:
            nonlocal found
            found = self.tasks_in(service, "running", host)
            return len(found) == count

        try:
            eventually(f"{count} tasks of {service} run", enough, seconds)
        except AssertionError as error:
            states = [
                (
                    t["Status"]["State"],
                    t["DesiredState"],
                    t["Status"].get("Err") or t["Status"].get("Message"),
                )
                for t in self.tasks(service, host)
            ]
            raise AssertionError(f"{error}; tasks: {states}") from None
        return found

    def nodes(self, host: str = "host1") -> dict[str, Json]:
        """The nodes by their hostname."""
        return {node["Description"]["Hostname"]: node for node in self.client(host).api.nodes()}

    def host_of(self, task: Json, host: str = "host1") -> str:
        """The name of the host that a task is on."""
        return next(name for name, node in self.nodes(host).items() if node["ID"] == task.get("NodeID"))

    def spread(self, tasks: Sequence[Json]) -> list[str]:
        """The hosts that tasks are on, sorted."""
        names = {node["ID"]: name for name, node in self.nodes().items()}
        return sorted(names[task["NodeID"]] for task in tasks)

    def container(self, task: Json, host: str = "host1") -> Json:
        """What the task's own host says of its container."""
        found: Json = self.client(self.host_of(task, host)).api.inspect_container(
            task["Status"]["ContainerStatus"]["ContainerID"]
        )
        return found

    def enter(self, task: Json, script: str, host: str = "host1", timeout: float = 30.0) -> str:
        """Run a shell script of the container's own programs inside a task's container."""
        place, pid = self.host_of(task, host), str(self.container(task, host)["State"]["Pid"])
        path = "export PATH=/bin:/usr/bin; "
        command = ["nsenter", "-t", pid, "-m", "-n", "-p", "-u", "-i", "-r", "-w", "/bin/sh", "-c"]
        done = self.playground.run(place, [*command, path + script], timeout)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def logs(self, service: str, *options: str) -> str:
        """What the service has written, without the tasks' names."""
        return self.docker("service", "logs", "--raw", *options, service)

    def eventual_logs(self, service: str, text: str) -> str:
        """Wait until the service has written `text`; everything it has written."""
        return eventually(
            f"{service} writes {text!r}",
            lambda: log if text in (log := self.logs(service)) else "",
            pause=0.2,
        )

    # --- from outside -------------------------------------------------------------------------------------

    def fetch(self, host: str, port: int, path: str = "/") -> str:
        """What a published port answers to the client, through that host. Raises AssertionError."""
        done = self.from_client("curl", "-fsS", "-m", "3", f"http://{self.address(host)}:{port}{path}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def from_client(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the namespace outside the cluster."""
        return self.playground.run(CLIENT, command)

    # --- images and cleaning ------------------------------------------------------------------------------

    def load(self, archive: Path) -> None:
        """`docker load` on every host."""
        for host in self.hosts:
            self.docker("load", "--input", str(archive), host=host)

    def clear(self, host: str = "host1") -> None:
        """Remove every service, network, secret and config, and wait until the tasks are gone."""
        api = self.client(host).api
        for service in api.services():
            api.remove_service(service["ID"])
        names = [
            network["Name"]
            for network in api.networks()
            if network["Scope"] == "swarm" and network["Name"] != "ingress"
        ]
        for name in names:
            eventually(f"network {name} can be removed", lambda name=name: _done(api.remove_network, name))
        for secret in api.secrets():
            api.remove_secret(secret["ID"])
        for config in api.configs():
            api.remove_config(config["ID"])
        for name in self.hosts:
            eventually(
                f"{name} has no containers left",
                lambda name=name: not self.client(name).api.containers(all=True),
            )

    def wait_ready(self, managers: int, host: str = "host1") -> None:
        """Wait until all hosts are ready and all managers reachable."""
        wait_ready(self.playground.engine(host), len(self.hosts), managers)

    def mark(self) -> None:
        """Forget the daemons' troubles so far."""
        for host in self.playground.hosts():
            self._marks[host.name] = host.log.stat().st_size if host.log.exists() else 0

    def troubles(self) -> str:
        """Warnings and tracebacks that the daemons have written since the last mark."""
        found = []
        for host in self.playground.hosts():
            if host.log.exists():
                lines = (
                    host.log.read_bytes()[self._marks.get(host.name, 0) :]
                    .decode(errors="replace")
                    .splitlines()
                )
                found += [f"{host.name}: {line}" for line in lines if " level=info " not in line]
        return "\n".join(found[-200:])

    def close(self) -> None:
        """Close the clients; the playground stays."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()


_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "NO_COLOR": "1",
}


def _done(call: Callable[..., object], *arguments: object) -> bool:
    call(*arguments)
    return True


@contextmanager
def playground(**settings: Any) -> Iterator[Cluster]:
    """A new playground in a short path (API sockets must fit a unix socket address), gone afterwards."""
    parent = Path(tempfile.mkdtemp(prefix="shoal-"))
    place = Playground(parent / "p")
    cluster = Cluster(place)
    try:
        place.up(Settings(**({"hosts": 3, "managers": 3, "daemon": default_daemon()} | settings)))
        yield cluster
    finally:
        cluster.close()
        place.down()
        shutil.rmtree(parent)
