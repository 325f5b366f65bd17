"""Names of the cluster asked in containers: answers a second of one node, and the time to one."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import net_tools
from bench.cluster import (
    SHOAL,
    Options,
    create,
    host_processes,
    playground,
    running,
    sleepers,
    wait_running,
)
from bench.net_tools import Spot, cpu_ns
from bench.peer import Daemon
from bench.report import Bar
from shoal.cli.client import Engine
from tests.support.network_lab import REPOSITORY

ROUNDS = 5
REPLICAS, CLIENTS = 10, 2
SECONDS = 1.5
WINDOW = 32
RATE, P50, P99 = 20_000, 100.0, 250.0
SERVER, DNS, ECHO_PORT = "127.0.0.11", 53, 5300
RECORDED = ("dockerd, recorded earlier", "9,000-11,500", "", "", "90-110", "170-215", "", "")


@dataclass
class Figures:
    """One server's samples."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    """Medians with a socket for each question."""


def ask(spots: Sequence[Spot], server: tuple[str, int], window: int, *names: str) -> list[dict[str, Any]]:
    """Ask from several places at once; what each found."""
    words = [sys.executable, "-m", "bench.dns_client", server[0], str(server[1]), str(SECONDS), str(window)]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}
    clients = [
        subprocess.Popen(
            spot.command([*words, *names]), env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        for spot in spots
    ]
    found = []
    for client in clients:
        output, _ = client.communicate()
        if client.returncode:
            raise AssertionError(f"{server[0]} did not answer {names}")
        found.append(json.loads(output))
    return found


def sample(
    figures: Figures, spots: Sequence[Spot], server: tuple[str, int], pid: int, names: dict[str, list[str]]
) -> None:
    """One round: each kind of name by all, then one question at a time by one."""
    for kind, asked in names.items():
        before = cpu_ns(pid)
        found = ask(spots, server, WINDOW, *asked)
        figures.rates.setdefault(kind, []).append(sum(each["rate"] for each in found))
        figures.cpu.append((cpu_ns(pid) - before) / 1e3 / sum(each["answers"] for each in found))
    every = [name for asked in names.values() for name in asked]
    (alone,) = ask(spots[:1], server, 1, *every)
    figures.p50.append(alone["p50"])
    figures.p99.append(alone["p99"])
    (anew,) = ask(spots[:1], server, 0, *every)
    figures.fresh.append(anew["p50"])


def of_engine(daemon: Daemon, options: Options) -> tuple[Figures, Figures]:
    """An engine's figures, and those of an echo of the same datagrams in the same containers."""
    figures, raw = Figures(), Figures()
    with playground(daemon, 1, 1, options.image) as place:
        engine = place.engine("host1")
        engine.post("/networks/create", {"Name": "shop", "Driver": "overlay"})
        web = create(engine, sleepers("web", REPLICAS, ["shop"]))
        client = create(engine, sleepers("client", CLIENTS, ["shop"]))
        wait_running(engine, web, REPLICAS)
        wait_running(engine, client, CLIENTS)
        containers = [task["Status"]["ContainerStatus"]["ContainerID"] for task in running(engine, client)]
        spots = [net_tools.container_spot(place, "host1", each) for each in containers]
        names = {"1 address": ["web", "client"], "10 addresses": ["tasks.web"], "a task": tasks(engine, web)}
        pid = serving(host_processes(place, "host1"), daemon)
        echo = subprocess.Popen(
            spots[0].command([sys.executable, "-m", "bench.udp_echo", str(ECHO_PORT)]),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
        )
        try:
            assert echo.stdout is not None
            echo.stdout.readline()
            for _ in range(options.rounds(ROUNDS)):
                sample(figures, spots, (SERVER, DNS), pid, names)
                sample(raw, spots[:1], ("127.0.0.1", ECHO_PORT), echo.pid, {"1 address": ["web"]})
        finally:
            echo.kill()
            echo.communicate()
    return figures, raw


def tasks(engine: Engine, service: str) -> list[str]:
    """The names that containers of a service have."""
    return [f"web.{task['Slot']}.{task['ID']}" for task in running(engine, service)]


def serving(found: dict[int, str], daemon: Daemon) -> int:
    """The process that serves names."""
    word = "shoald" if daemon is SHOAL else "dockerd "
    return min(
        pid
        for pid, line in found.items()
        if word in f"{line} " and "manager" not in line and "-m " not in line
    )


def row(name: str, figures: Figures, limit: float = 0.0) -> tuple[str, ...]:
    """A row of the table; rates are the best round's, percentiles the median of the rounds'."""
    rates = [f"{max(each):,.0f}" for each in figures.rates.values()]
    times = (statistics.median(each) for each in (figures.p50, figures.p99, figures.fresh))
    rates += [""] * (3 - len(rates))
    ratio = f"{statistics.median(figures.p50) / limit:.2f}" if limit else ""
    cpu = f"{statistics.median(figures.cpu):.1f}"
    return (
        name,
        *rates,
        *(f"{each:.0f}" for each in times),
        f"{cpu} µs{f', {ratio} of the raw p50' * bool(ratio)}",
    )


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "20. Names asked in containers",
        f"at least {RATE:,} answers a second of one node for the cluster's names; unloaded p50 under "
        f"{P50:.0f} µs and p99 under {P99:.0f} µs",
        (
            "server",
            "1 address: /s",
            "10",
            "a task's",
            "p50 µs",
            "p99",
            "p50, new socket",
            "CPU for an answer",
        ),
    )
    own, raw = of_engine(SHOAL, options)
    limit = statistics.median(raw.p50)
    bar.rows += [row("Shoal", own, limit), row("echo of the datagrams, raw limit", raw)]
    if options.peer:
        bar.rows.append(row(options.peer.name, of_engine(options.peer, options)[0]))
    bar.rows.append(RECORDED)
    for kind, rates in own.rates.items():
        bar.check(max(rates) >= RATE, f"{kind}: {max(rates):,.0f} answers/s")
    for name, values, goal in (("p50", own.p50, P50), ("p99", own.p99, P99)):
        middle = statistics.median(values)
        bar.check(
            middle < goal, f"{name} {middle:.0f} µs, {min(values):.0f} in the best of {len(values)} rounds"
        )
    bar.notes.append(
        f"{CLIENTS} containers at once, {WINDOW} questions on their way from each, one socket each; each "
        "answer is checked. p50 and p99: one question at a time. Rounds of "
        f"{SECONDS} s; a client in Python, the same for all. Rates are the best round's, times the median of "
        f"the rounds'. The clients take most of one core: {os.cpu_count()} are here."
    )
    return bar
