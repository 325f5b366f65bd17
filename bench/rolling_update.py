"""Rolling updates of ten replicas behind a published port under load: good ones, and broken ones."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.cluster import SHOAL, Json, Options, playground, running, until, wait_running
from bench.peer import CACHE
from bench.report import Bar, seconds
from bench.web import SECOND, failures, no_mesh, under_load, update, urls, web_service
from shoal.cli.client import Engine
from shoal.demo import web_image

ROUNDS = 3
HOSTS = 3
REPLICAS = 10
RATE = 200.0
"""Requests a second in all, each on a new connection."""
IMAGES = ("web:1", "web:2")
ABSENT = "web:none"
"""An image that no host has and no registry gives."""
SETTLE = 2.0
ENDS = ("completed", "paused", "rollback_completed", "rollback_paused")


@dataclass(frozen=True)
class Change:
    """One kind of update."""

    title: str
    order: str
    broken: Callable[[Json], None] | None = None
    """What makes the new spec one that can't run; None for one that can."""


def exits(container: Json) -> None:
    """Its program ends at once with an error."""
    container["Command"] = ["/usr/sbin/nginx", "-c", "/no/such/file"]


def can_not_be_pulled(container: Json) -> None:
    """Its image is nowhere."""
    container["Image"] = ABSENT


def is_never_healthy(container: Json) -> None:
    """Its health check fails."""
    container["HealthCheck"] = {
        "Test": ["CMD", "/usr/sbin/nginx", "-t", "-c", "/no/such/file"],
        "Interval": SECOND // 5,
        "Timeout": SECOND,
        "Retries": 2,
    }


CHANGES = [
    *(Change("a new image", order) for order in ("start-first", "stop-first")),
    *(
        Change(title, order, broken)
        for title, broken in (
            ("a program that ends at once", exits),
            ("an image that is nowhere", can_not_be_pulled),
            ("a task that is never healthy", is_never_healthy),
        )
        for order in ("start-first", "stop-first")
    ),
]


def apply(engine: Engine, service: str, change: Change) -> float:
    """Make one update and wait until it is over; its seconds. Raises AssertionError if it ended otherwise."""
    image = ""

    def write(spec: Json) -> None:
        nonlocal image
        container = spec["TaskTemplate"]["ContainerSpec"]
        before = container["Image"]
        image = before if change.broken else next(other for other in IMAGES if other != before)
        container["Image"] = image
        if change.broken:
            change.broken(container)
        for policy in ("UpdateConfig", "RollbackConfig"):
            spec[policy] = {"Parallelism": 2, "Monitor": SECOND, "Order": change.order}
        spec["UpdateConfig"]["FailureAction"] = "rollback"

    begun = time.monotonic()
    stamp = (engine.get(f"/services/{service}").get("UpdateStatus") or {}).get("StartedAt")
    update(engine, service, write)
    ended = ""

    def over() -> bool:
        nonlocal ended
        status = engine.get(f"/services/{service}").get("UpdateStatus") or {}
        ended = status.get("State", "")
        return status.get("StartedAt") != stamp and ended in ENDS

    until("the update ends", over)
    took = time.monotonic() - begun
    expected = "rollback_completed" if change.broken else "completed"
    assert ended == expected, f"the update ended as {ended}, not {expected}"
    wait_running(engine, service, REPLICAS)
    images = {task["Spec"]["ContainerSpec"]["Image"] for task in running(engine, service)}
    assert images == {image}, f"tasks run {images}, not {image}"
    return took


def run(options: Options) -> Bar:
    """Measure."""
    rounds = options.rounds(ROUNDS)
    bar = Bar(
        f"13. Rolling updates of {REPLICAS} replicas under load",
        f"no failed request at {RATE:.0f} new connections a second; broken ones roll back by themselves",
        ("update to", "order", "updates", "seconds", "answered", "failed", "slowest"),
    )
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as scratch:
        archives = []
        for version, image in enumerate(IMAGES, 1):
            archives.append(Path(scratch) / f"web-{version}.tar")
            web_image.build(archives[-1], image, CACHE, str(version))
        with playground(SHOAL, HOSTS, HOSTS, *archives) as place:
            engine = place.engine("host1")
            service = web_service(engine, IMAGES[0], REPLICAS)
            wait_running(engine, service, REPLICAS)
            through = list(urls(place).values())
            for change in CHANGES:
                took: list[float] = []

                def work(change: Change = change, took: list[float] = took) -> None:
                    time.sleep(SETTLE)
                    for _ in range(rounds):
                        took.append(apply(engine, service, change))
                        time.sleep(SETTLE)

                result = under_load(place, through, RATE / HOSTS, work)
                answered, failed, causes = failures(result)
                slowest = max(stream["slowest_ms"] for stream in result.values())
                bar.check(
                    failed == 0,
                    f"{change.title}, {change.order}: {failed} of {answered + failed} requests failed",
                )
                bar.rows.append(
                    (
                        *(change.title, change.order, str(len(took)), seconds(took), str(answered)),
                        *(f"{failed} {causes}".strip(), f"{slowest:.0f} ms"),
                    )
                )
    bar.notes.append(
        f"From outside, a third of the connections through each of {HOSTS} hosts; parallelism 2, "
        "monitored for a second, failure action rollback. Broken ones: seconds until they were rolled back."
    )
    no_mesh(bar)
    return bar
