"""Bar 5: scaling 3 → 12 → 3 under constant load on the published port through every host."""

import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cluster import SHOAL, Options, create, playground, until, wait_running
from bench.peer import CACHE
from bench.report import Bar, seconds
from shoal.cli.client import Engine
from shoal.demo import web_image
from shoal.playground.layout import CLIENT
from shoal.playground.playground import Playground

ROUNDS = 5
FEW, MANY = 3, 12
HOSTS = 3
PORT = 8080
RATE = 50.0
"""Requests a second through each host, each on a new connection."""
IMAGE = "web:1"
SETTLE = 2.0


def web_service(engine: Engine) -> str:
    """A web service on an overlay network with a published port; its id."""
    network = engine.post("/networks/create", {"Name": "shop", "Driver": "overlay"})["Id"]
    port = {"TargetPort": web_image.PORT, "PublishedPort": PORT, "Protocol": "tcp", "PublishMode": "ingress"}
    spec = {
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": {"Image": IMAGE, "StopGracePeriod": 10_000_000_000},
            "RestartPolicy": {"Condition": "any", "Delay": 1_000_000_000},
            "Networks": [{"Target": network}],
        },
        "Mode": {"Replicated": {"Replicas": FEW}},
        "EndpointSpec": {"Ports": [port]},
    }
    return create(engine, spec)


def containers(place: Playground) -> int:
    """The service's containers on all hosts that still run."""
    return sum(len(place.engine(host.name).get("/containers/json")) for host in place.hosts())


def scale(place: Playground, service: str, count: int) -> float:
    """Seconds until exactly so many tasks run, and no other container does."""
    engine = place.engine("host1")
    found = engine.get(f"/services/{service}")
    found["Spec"]["Mode"]["Replicated"]["Replicas"] = count
    begun = time.monotonic()
    engine.post(f"/services/{service}/update", found["Spec"], version=found["Version"]["Index"])
    wait_running(engine, service, count)
    until(f"{count} containers are left", lambda: containers(place) == count)
    return time.monotonic() - begun


def run(options: Options) -> Bar:
    """Measure."""
    rounds = options.rounds(ROUNDS)
    bar = Bar(
        f"5. Scaling {FEW} → {MANY} → {FEW} under load",
        f"no failed request in {ROUNDS} rounds",
        ("through", "answered", "failed", "slowest"),
    )
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as scratch:
        archive = Path(scratch) / "web.tar"
        web_image.build(archive, IMAGE, CACHE)
        with playground(SHOAL, HOSTS, HOSTS, archive) as place:
            service = web_service(place.engine("host1"))
            wait_running(place.engine("host1"), service, FEW)
            urls = {host.name: f"http://{host.address}:{PORT}/" for host in place.hosts()}
            for url in urls.values():
                until(f"{url} answers", functools.partial(_answers, place, url))
            ups, downs, result = _load_and_scale(place, service, list(urls.values()), rounds)
    answered = failed = 0
    for name, url in urls.items():
        stream = result[url]
        answered += stream["answers"]
        failed += len(stream["failures"])
        causes = sorted({cause for _, cause in stream["failures"]})
        bar.rows.append(
            (
                name,
                str(stream["answers"]),
                f"{len(stream['failures'])} {'; '.join(causes)}".strip(),
                f"{stream['slowest_ms']:.0f} ms",
            )
        )
    tasks = {task for stream in result.values() for task in stream["tasks"]}
    bar.check(failed == 0, f"{failed} of {answered + failed} requests failed in {rounds} rounds")
    bar.notes.append(
        f"New connections at {RATE:.0f} a second through each of {HOSTS} hosts, from outside the cluster; "
        f"{len(tasks)} tasks answered. Scaling up took {seconds(ups)} s, down {seconds(downs)} s (until the "
        "last container had ended). No peer: dockerd's mesh needs IPVS, which the kernel of this machine "
        f"{'has' if Path('/proc/net/ip_vs').exists() else 'lacks'}."
    )
    return bar


def _answers(place: Playground, url: str) -> bool:
    return place.run(CLIENT, ["curl", "-fsS", "-m", "1", url]).returncode == 0


def _load_and_scale(
    place: Playground, service: str, urls: list[str], rounds: int
) -> tuple[list[float], list[float], dict[str, Any]]:
    command = [sys.executable, "-m", "shoal.demo.load", "--rate", str(RATE), *urls]
    ups, downs = [], []
    with place.popen(CLIENT, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        try:
            assert load.stdout is not None
            load.stdout.readline()  # "started"
            time.sleep(SETTLE)
            for _ in range(rounds):
                ups.append(scale(place, service, MANY))
                time.sleep(SETTLE)
                downs.append(scale(place, service, FEW))
                time.sleep(SETTLE)
            output, _ = load.communicate(timeout=30)
        finally:
            load.kill()
    return ups, downs, json.loads(output)
