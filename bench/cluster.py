"""Clusters to measure, driven through the Engine API alone, so that every engine is asked in the same way."""

import functools
import http.client
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peer import Daemon
from cluster.errors import ShoalError
from shoal.cli.client import Engine, json_lines
from shoal.playground import processes
from shoal.playground.boxes import default_daemon
from shoal.playground.formation import wait_ready
from shoal.playground.layout import Settings
from shoal.playground.playground import Playground

SHOAL = Daemon("Shoal", default_daemon(), "-m manager ")
IMAGE = "busybox:latest"
POLL = 0.05

Json = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What a run was asked for."""

    quick: bool
    """One round of everything: to see that it works, not to measure."""
    peer: Daemon | None
    image: Path
    """An archive with IMAGE in it."""

    def rounds(self, count: int) -> int:
        """How often to repeat something that a measurement repeats `count` times."""
        return 1 if self.quick else count


@contextmanager
def playground(daemon: Daemon, hosts: int, managers: int, *images: Path) -> Iterator[Playground]:
    """A new cluster with the images loaded on every host; gone afterwards."""
    parent = Path(tempfile.mkdtemp(prefix="shoal-bench-"))
    place = Playground(parent / "p")
    try:
        place.up(Settings(hosts=hosts, managers=managers, daemon=daemon.command, log_level="warn"))
        for host in place.hosts():
            for image in images:
                load(place.engine(host.name), image)
        yield place
    finally:
        place.down()
        shutil.rmtree(parent)


def load(engine: Engine, image: Path) -> None:
    """`docker load`. Raises ShoalError."""
    headers = {"Content-Type": "application/x-tar"}
    with (
        image.open("rb") as archive,
        engine.stream("POST", "/images/load", body=archive, headers=headers) as response,
    ):
        for line in json_lines(response):
            if "error" in line:
                raise ShoalError(f"{engine.host} can't load {image}: {line['error']}")


def until(what: str, condition: Callable[[], object], limit: float = 120.0) -> None:
    """Wait until it holds; an engine that can't answer now is asked again. Raises TimeoutError."""
    deadline = time.monotonic() + limit
    problem = ""
    while True:
        try:
            if condition():
                return
        except (ShoalError, OSError, http.client.HTTPException) as error:
            problem = f" ({error})"
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {limit:.0f} s{problem}")
        time.sleep(POLL)


def sleepers(name: str, replicas: int, networks: Sequence[str] = (), constraints: Sequence[str] = ()) -> Json:
    """The spec of a service that sleeps and dies at once when told to."""
    return {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": IMAGE,
                "Command": ["sleep", "100000"],
                "Init": False,
                "StopGracePeriod": 1_000_000_000,
                "StopSignal": "SIGKILL",
            },
            "RestartPolicy": {"Condition": "any", "Delay": 0},
            "Networks": [{"Target": network} for network in networks],
            "Placement": {"Constraints": list(constraints)},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }


def create(engine: Engine, spec: Json) -> str:
    """Create a service; its id."""
    return str(engine.post("/services/create", spec)["ID"])


def running(engine: Engine, service: str) -> list[Json]:
    """The service's tasks that run and should."""
    tasks = engine.get("/tasks", filters={"service": [service]})
    return [t for t in tasks if t["Status"]["State"] == "running" and t["DesiredState"] == "running"]


def wait_running(engine: Engine, service: str, count: int) -> None:
    """Wait until exactly so many tasks run."""
    until(f"{count} tasks run", lambda: len(running(engine, service)) == count)


def remove(engine: Engine, service: str) -> None:
    """Remove a service and wait until neither a task of it runs nor a container of it is left here."""
    engine.delete(f"/services/{service}")

    def gone() -> bool:
        label = f"com.docker.swarm.service.id={service}"
        if engine.get("/containers/json", all=True, filters={"label": [label]}):
            return False
        tasks = engine.get("/tasks")
        return not any(t["ServiceID"] == service and t["Status"]["State"] == "running" for t in tasks)

    until(f"service {service} is gone", gone)


def leader(engine: Engine) -> str:
    """The hostname of the leading manager; empty while there is none."""
    for node in engine.get("/nodes"):
        if (node.get("ManagerStatus") or {}).get("Leader"):
            return str(node["Description"]["Hostname"])
    return ""


def wait_healthy(place: Playground, hosts: int, managers: int) -> None:
    """Wait until every manager sees all nodes ready, all managers reachable and a leader."""
    for host in place.hosts()[:managers]:
        engine = place.engine(host.name)
        wait_ready(engine, hosts, managers)
        until("a manager leads", functools.partial(leader, engine))


def host_processes(place: Playground, host: str) -> dict[int, str]:
    """The processes of a host: command lines by process id, as this machine numbers them."""
    init = processes.inits(place.layout.directory)[host]
    space = Path(f"/proc/{init}/ns/pid").readlink()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").readlink() == space:
                words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                found[int(process.name)] = b" ".join(words).decode(errors="replace")
        except OSError:
            continue  # it has ended
    return found
