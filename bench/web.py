"""A web service behind a published port, and steady load on it from outside the cluster."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.cluster import Json, create, until
from bench.report import Bar
from shoal.cli.client import Engine
from shoal.demo import web_image
from shoal.playground.layout import CLIENT
from shoal.playground.playground import Playground

PORT = 8080
SECOND = 1_000_000_000


def web_service(engine: Engine, image: str, replicas: int, **policies: Json) -> str:
    """Create a web service on an overlay network with a published port; its id. `policies` join its spec."""
    network = engine.post("/networks/create", {"Name": "shop", "Driver": "overlay"})["Id"]
    port = {"TargetPort": web_image.PORT, "PublishedPort": PORT, "Protocol": "tcp", "PublishMode": "ingress"}
    spec = {
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": {"Image": image, "StopGracePeriod": 10 * SECOND},
            "RestartPolicy": {"Condition": "any", "Delay": SECOND},
            "Networks": [{"Target": network}],
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Ports": [port]},
        **policies,
    }
    return create(engine, spec)


def update(engine: Engine, service: str, change: Callable[[Json], None]) -> None:
    """Read the service, change its spec, and write it."""
    found = engine.get(f"/services/{service}")
    change(found["Spec"])
    engine.post(f"/services/{service}/update", found["Spec"], version=found["Version"]["Index"])


def urls(place: Playground) -> dict[str, str]:
    """The published port through each host; waits until each answers."""
    found = {host.name: f"http://{host.address}:{PORT}/" for host in place.hosts()}
    for url in found.values():
        command = ["curl", "-fsS", "-m", "1", url]
        until(f"{url} answers", lambda command=command: place.run(CLIENT, command).returncode == 0)
    return found


def under_load(
    place: Playground, urls: Sequence[str], rate: float, work: Callable[[], None]
) -> dict[str, Any]:
    """Do something while `rate` new connections a second go to each URL; what became of them, by URL."""
    command = [sys.executable, "-m", "shoal.demo.load", "--rate", str(rate), *urls]
    with place.popen(CLIENT, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        try:
            assert load.stdout is not None
            load.stdout.readline()  # "started"
            work()
            output, _ = load.communicate(timeout=30)
        finally:
            load.kill()
    found: dict[str, Any] = json.loads(output)
    return found


def failures(result: dict[str, Any]) -> tuple[int, int, str]:
    """How many requests were answered, how many failed, and the failures' causes."""
    answered = sum(stream["answers"] for stream in result.values())
    failed = [cause for stream in result.values() for _, cause in stream["failures"]]
    return answered, len(failed), "; ".join(sorted(set(failed)))


def no_mesh(bar: Bar) -> None:
    """Say why there is no peer."""
    has = "has" if Path("/proc/net/ip_vs").exists() else "lacks"
    bar.notes.append(f"No peer: dockerd's mesh needs IPVS, which the kernel of this machine {has}.")
