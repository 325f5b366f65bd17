"""Requests through the mesh from outside while everything behind it changes, and connections that idle."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import idle_connections
from bench.cluster import (
    SHOAL,
    Json,
    Options,
    host_processes,
    leader,
    playground,
    until,
    wait_healthy,
    wait_running,
)
from bench.leader_kill import kill_process
from bench.peer import CACHE
from bench.report import Bar
from bench.rolling_update import CHANGES, IMAGES, Change, apply
from bench.web import update as change_service
from bench.web import urls, web_service
from shoal.demo import load as demo_load
from shoal.demo import web_image
from shoal.playground.layout import CLIENT
from shoal.playground.playground import Playground

HOSTS, MANAGERS = 4, 3
REPLICAS = 10
RATE = 500.0
HELD = 5
"""Connections kept open through each host."""
SETTLE = 2.0
ALIVE = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running")
LOAD_MODULE = demo_load.__name__


@dataclass
class Event:
    """One change, and what became of requests during it and until the next."""

    title: str
    work: Callable[[], None]
    stops_tasks: bool = True
    begun: float = 0.0
    ended: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    moments: list[float] = field(default_factory=list)
    """Seconds after the beginning at which requests failed."""
    held: Counter[str] = field(default_factory=Counter)
    entries: Counter[str] = field(default_factory=Counter)
    """Through which hosts requests failed."""
    late: float = 0.0
    """Seconds that the load generator itself was behind, at most."""
    lost: list[str] = field(default_factory=list)
    """Tasks that ran before and do not run afterwards, and why."""


class Changes:
    """What is done to a cluster."""

    def __init__(self, place: Playground, service: str) -> None:
        self.place, self.service = place, service
        self.engine = place.engine("host1")

    def scale(self, replicas: int) -> None:
        """To so many, and wait for them."""

        def write(spec: Json) -> None:
            spec["Mode"]["Replicated"]["Replicas"] = replicas

        change_service(self.engine, self.service, write)
        self.wait(replicas)

    def available(self, host: str, availability: str) -> None:
        """Drain a node, or take it back; wait until its tasks run elsewhere."""
        node = next(each for each in self.engine.get("/nodes") if each["Description"]["Hostname"] == host)
        spec = node["Spec"] | {"Availability": availability}
        self.engine.post(f"/nodes/{node['ID']}/update", spec, version=node["Version"]["Index"])
        if availability == "drain":
            until(f"{host} has no tasks", lambda: not self._alive(node["ID"]))
        self.wait(REPLICAS)

    def restart(self, host: str) -> None:
        """Restart its daemon in order."""
        self.place.restart_daemon(host)
        self._wait()

    def kill(self, host: str) -> None:
        """kill -9 of its daemon, and start it again."""
        found = host_processes(self.place, host)
        (daemon,) = (pid for pid, line in found.items() if _is_daemon(line))
        kill_process(daemon)
        self.place.restart_daemon(host)
        self._wait()

    def kill_leader(self) -> None:
        """kill -9 of the leading manager's process; its daemon starts it again."""
        name = leader(self.engine)
        found = host_processes(self.place, name)
        (manager,) = (pid for pid, line in found.items() if SHOAL.process in f"{line} ")
        kill_process(manager)
        self._wait()

    def wait(self, replicas: int) -> None:
        """Until so many tasks run, and those that should not have ended."""
        wait_running(self.engine, self.service, replicas)
        until(
            "tasks that are to stop have ended",
            lambda: all(task["DesiredState"] == "running" for task in self._alive()),
        )

    def _alive(self, node: str = "") -> list[Json]:
        """Tasks that have not ended, of all nodes or one."""
        tasks = self.engine.get("/tasks", filters={"service": [self.service]})
        return [t for t in tasks if t["Status"]["State"] in ALIVE and node in ("", t.get("NodeID"))]

    def _wait(self) -> None:
        wait_healthy(self.place, HOSTS, MANAGERS)
        self.wait(REPLICAS)

    def tasks(self) -> dict[str, str]:
        """Every task of the service: its state, and what it says of it."""
        found = self.engine.get("/tasks", filters={"service": [self.service]})
        return {
            task["ID"]: f"{task['Status']['State']}: {task['Status'].get('Message', '')} "
            f"{task['Status'].get('Err', '')}".strip()
            for task in found
        }

    def events(self) -> list[Event]:
        """All, in order."""
        first, second = (change for change in CHANGES if change.broken is None)
        return [
            Event("rolling update, start-first", lambda: self._update(first)),
            Event("rolling update, stop-first", lambda: self._update(second)),
            Event(f"scale up from {REPLICAS} to {REPLICAS * 2}", lambda: self.scale(REPLICAS * 2), False),
            Event(f"scale down to {REPLICAS}", lambda: self.scale(REPLICAS)),
            Event("drain of a node", lambda: self.available("host4", "drain")),
            Event("the node back, and more tasks on it", self._back),
            Event("restart of shoald on a worker", lambda: self.restart("host4"), False),
            Event("restart of shoald on a manager", lambda: self.restart("host3"), False),
            Event("kill -9 of shoald on a worker", lambda: self.kill("host4"), False),
            Event("kill -9 of the leading manager", self.kill_leader, False),
        ]

    def _update(self, change: Change) -> None:
        apply(self.engine, self.service, change)
        self.wait(REPLICAS)

    def _back(self) -> None:
        self.available("host4", "active")
        self.scale(REPLICAS + 4)
        self.scale(REPLICAS)


def _is_daemon(line: str) -> bool:
    return "shoald" in line.partition(" --")[0] and "-m " not in line and "supervisor" not in line


def carry_out(changes: Changes, events: list[Event]) -> None:
    """One after the other."""
    time.sleep(SETTLE)
    for event in events:
        before = [id for id, state in changes.tasks().items() if state.startswith("running")]
        event.begun = time.time()
        event.work()
        event.ended = time.time()
        time.sleep(SETTLE)
        after = changes.tasks()
        event.lost = [
            after.get(id, "gone") for id in before if not after.get(id, "gone").startswith("running")
        ]


def under_load(changes: Changes, through: list[str], events: list[Event], rate: float) -> tuple[int, int]:
    """Carry them out under load, and tell each event what failed meanwhile; answers on new connections, and
    on held ones."""
    # The client stands for another machine: it must not wait for CPU that the hosts take.
    python, place = ["nice", "-n", "-10", sys.executable, "-m"], changes.place
    with (
        _start(place, [*python, LOAD_MODULE, "--rate", str(rate / len(through)), *through]) as load,
        _start(place, [*python, "bench.held_connections", str(HELD), *through]) as held,
    ):
        try:
            carry_out(changes, events)
            new, kept = (json.loads(each.communicate(timeout=60)[0]) for each in (load, held))
        finally:
            load.kill()
            held.kill()
    for late, behind in next(iter(new.values()))["late"]:
        event = _during(events, late)
        event.late = max(event.late, behind)
    for url, stream in new.items():
        for moment, cause in stream["failures"]:
            kind = cause.partition(":")[0]
            if kind == "TimeoutError":
                moment -= demo_load.TIMEOUT
            event = _during(events, moment)
            event.failures[kind] += 1
            event.entries[url.split("/")[2].partition(":")[0]] += 1
            event.moments.append(moment - event.begun)
    for moment, kind in kept["events"]:
        _during(events, moment).held[kind] += 1
    return sum(stream["answers"] for stream in new.values()), kept["answers"]


def _start(place: Playground, command: list[str]) -> "subprocess.Popen[str]":
    process = place.popen(CLIENT, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # "started"
    return process


def _during(events: list[Event], moment: float) -> Event:
    """The event whose turn it was."""
    return next((event for event in reversed(events) if event.begun <= moment), events[0])


def show(bar: Bar, events: list[Event]) -> None:
    """Judge, and show the figures."""
    for event in events:
        when = ", ".join(f"{each:.2f}" for each in sorted(event.moments)[:5])
        bar.rows.append(
            (
                *(event.title, f"{event.ended - event.begun:.1f} s", str(len(event.lost))),
                str(event.failures.total()),
                ", ".join(f"{count} {kind}" for kind, count in event.failures.items())
                + (f" at {when} s, through {dict(event.entries)}" if when else ""),
                ", ".join(f"{count} {kind}" for kind, count in event.held.items()),
                f"{event.late:.1f} s" if event.late else "",
            )
        )
    failed: Counter[str] = sum((event.failures for event in events), Counter())
    bar.check(not failed, f"{failed.total()} failed requests {dict(failed) or ''}")
    resets = failed["ConnectionResetError"] + sum(event.held["reset"] for event in events)
    bar.check(not resets, f"{resets} resets")
    quiet = [event for event in events if not event.stops_tasks]
    cut = sum((event.held for event in quiet), Counter[str]())
    bar.check(
        not cut, f"{cut.total()} of the held connections cut by changes that stop no task {dict(cut) or ''}"
    )


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "21. Changes under load through the mesh",
        f"rolling updates, scaling, drains and daemon restarts under {RATE:.0f} requests a second from "
        "outside: 0 failures, 0 resets; a TCP connection idle for two hours lives, through the mesh and "
        "through a service's address",
        (
            "change",
            "took",
            "tasks ended",
            "failed",
            "how, and when after its beginning",
            "held connections",
            "load generator late",
        ),
    )
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as scratch:
        archives = []
        for version, image in enumerate(IMAGES, 1):
            archives.append(Path(scratch) / f"web-{version}.tar")
            web_image.build(archives[-1], image, CACHE, str(version))
        with playground(SHOAL, HOSTS, MANAGERS, *archives, options.image) as place:
            engine = place.engine("host1")
            service = web_service(engine, IMAGES[0], REPLICAS)
            wait_running(engine, service, REPLICAS)
            through = list(urls(place).values())
            changes = Changes(place, service)
            events = changes.events()
            begun = time.monotonic()
            answered, held = under_load(changes, through, events, 50.0 if options.quick else RATE)
            took = time.monotonic() - begun
            idle: dict[str, Any] = idle_connections.measure(place)
    show(bar, events)
    idle_connections.show(bar, idle)
    bar.notes += [
        f"{answered:,} requests answered in {took:.0f} s, each on a new connection, a {HOSTS}th of them "
        f"through each of {HOSTS} hosts ({MANAGERS} managers); {held:,} more on {HELD} held connections "
        "through each. A held connection may be closed by a web server that stops. nginx without a health "
        "check. A change's failures are those until the next begins.",
    ]
    return bar
