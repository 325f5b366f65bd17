"""Bar 5: scaling 3 → 12 → 3 under constant load on the published port through every host."""

import tempfile
import time
from pathlib import Path

from bench.cluster import SHOAL, Options, playground, until, wait_running
from bench.peer import CACHE
from bench.report import Bar, seconds
from bench.web import failures, no_mesh, under_load, update, urls, web_service
from shoal.demo import web_image
from shoal.playground.playground import Playground

ROUNDS = 5
FEW, MANY = 3, 12
HOSTS = 3
RATE = 50.0
"""Requests a second through each host, each on a new connection."""
IMAGE = "web:1"
SETTLE = 2.0


def containers(place: Playground) -> int:
    """The service's containers on all hosts that still run."""
    return sum(len(place.engine(host.name).get("/containers/json")) for host in place.hosts())


def scale(place: Playground, service: str, count: int) -> float:
    """Seconds until exactly so many tasks run, and no other container does."""
    engine = place.engine("host1")
    begun = time.monotonic()
    update(engine, service, lambda spec: spec["Mode"]["Replicated"].update(Replicas=count))
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
            service = web_service(place.engine("host1"), IMAGE, FEW)
            wait_running(place.engine("host1"), service, FEW)
            through = urls(place)
            ups: list[float] = []
            downs: list[float] = []

            def work() -> None:
                time.sleep(SETTLE)
                for _ in range(rounds):
                    ups.append(scale(place, service, MANY))
                    time.sleep(SETTLE)
                    downs.append(scale(place, service, FEW))
                    time.sleep(SETTLE)

            result = under_load(place, list(through.values()), RATE, work)
    answered, failed, _ = failures(result)
    for name, url in through.items():
        stream = result[url]
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
        "last container had ended)."
    )
    no_mesh(bar)
    return bar
