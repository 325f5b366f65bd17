"""Bar 3: kill -9 of the leading manager under constant writes: the gap, and whether a write is lost."""

import http.client
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.cluster import SHOAL, Options, host_processes, leader, playground, until, wait_healthy
from bench.peer import Daemon
from bench.report import Bar, listed, percentile
from cluster.errors import ShoalError
from shoal.cli.client import Engine
from shoal.playground.playground import Playground

KILLS, PEER_KILLS = 100, 3
GOAL = 2.0
MANAGERS = 3
REQUEST_SECONDS = 3.0
PAUSE_AFTER_SUCCESS, PAUSE_AFTER_FAILURE = 0.05, 0.01
SETTLE = 2.0


@dataclass(frozen=True)
class Acknowledged:
    """A write that an engine has said is done."""

    name: str
    begun: float
    ended: float


class Writer(threading.Thread):
    """Creates configs through one host, one after the other, and remembers which were acknowledged."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(name=f"writer {host}", daemon=True)
        self.host = host
        self.acknowledged: list[Acknowledged] = []
        self.refused = 0
        self._engine = Engine(address, timeout=REQUEST_SECONDS)
        self._stop_asked = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            number += 1
            name = f"{self.host}-{number}"
            begun = time.monotonic()
            try:
                self._engine.post("/configs/create", {"Name": name, "Data": "YQ=="})
            except (ShoalError, OSError, http.client.HTTPException):
                self.refused += 1
                self._stop_asked.wait(PAUSE_AFTER_FAILURE)
            else:
                self.acknowledged.append(Acknowledged(name, begun, time.monotonic()))
                self._stop_asked.wait(PAUSE_AFTER_SUCCESS)

    def first_after(self, moment: float) -> float | None:
        """When the first write begun after that moment was acknowledged."""
        return next((write.ended for write in self.acknowledged if write.begun > moment), None)

    def finish(self) -> None:
        """Stop writing."""
        self._stop_asked.set()
        self.join()


@dataclass
class Outcome:
    """What the kills of one engine's leader showed."""

    gaps: list[float]
    """Seconds until a write through some survivor succeeded."""
    all_gaps: list[float]
    """Seconds until writes through every survivor succeeded."""
    acknowledged: int
    refused: int
    lost: list[str]


def kill_process(pid: int) -> float:
    """Kill it and wait until it is dead; returns when it was."""
    os.kill(pid, signal.SIGKILL)
    status = Path(f"/proc/{pid}/stat")
    while True:
        try:
            if status.read_text().rpartition(")")[2].split()[0] in "ZX":
                break
        except OSError:
            break
    return time.monotonic()


def _kill_leader(place: Playground, daemon: Daemon, writers: list[Writer]) -> tuple[float, float]:
    name = leader(place.engine("host1"))
    found = [p for p, line in host_processes(place, name).items() if daemon.process in f"{line} "]
    assert len(found) == 1, f"one leading manager process, not {found}"
    begun = time.monotonic()
    dead = kill_process(found[0])
    survivors = [writer for writer in writers if writer.host != name]
    until(
        "writes through the survivors succeed",
        lambda: all(writer.first_after(dead) is not None for writer in survivors),
    )
    ends = [writer.first_after(dead) or 0.0 for writer in survivors]
    if daemon is not SHOAL:
        place.restart_daemon(name)  # shoald starts its manager again by itself
    until(
        "the killed manager is back",
        lambda: (
            any(daemon.process in f"{line} " for line in host_processes(place, name).values())
            and leader(place.engine(name))
        ),
    )
    wait_healthy(place, MANAGERS, MANAGERS)
    time.sleep(SETTLE)
    return min(ends) - begun, max(ends) - begun


def measure(daemon: Daemon, kills: int) -> Outcome:
    """Kill the leader so many times, each time once all managers are well again."""
    with playground(daemon, MANAGERS, MANAGERS) as place:
        writers = [Writer(host.name, host.docker_host) for host in place.hosts()]
        for writer in writers:
            writer.start()
        try:
            time.sleep(SETTLE)
            pairs = [_kill_leader(place, daemon, writers) for _ in range(kills)]
        finally:
            for writer in writers:
                writer.finish()
        kept = {config["Spec"]["Name"] for config in place.engine("host1").get("/configs")}
        acknowledged = [write.name for writer in writers for write in writer.acknowledged]
        return Outcome(
            [first for first, _ in pairs],
            [last for _, last in pairs],
            len(acknowledged),
            sum(writer.refused for writer in writers),
            sorted(set(acknowledged) - kept),
        )


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "3. kill -9 of the leading manager",
        f"{KILLS} times; a write through a survivor succeeds within {GOAL:.0f} s (p99); no acknowledged "
        "write is lost",
        ("", "kills", "p50", "p95", "p99", "max", "through every survivor: p99", "acknowledged", "lost"),
    )
    outcomes = [(SHOAL, measure(SHOAL, options.rounds(KILLS)))]
    if options.peer:
        outcomes.append((options.peer, measure(options.peer, options.rounds(PEER_KILLS))))
    for daemon, outcome in outcomes:
        figures = [percentile(outcome.gaps, share) for share in (0.5, 0.95, 0.99, 1.0)]
        figures.append(percentile(outcome.all_gaps, 0.99))
        cells = [f"{figure:.2f} s" for figure in figures]
        counts = (str(outcome.acknowledged), str(len(outcome.lost)))
        bar.rows.append((daemon.name, str(len(outcome.gaps)), *cells, *counts))
        bar.notes.append(f"{daemon.name}, all: {listed(outcome.gaps)} s")
    ours = outcomes[0][1]
    p99 = percentile(ours.gaps, 0.99)
    against = f"; {outcomes[1][0].name}: {listed(outcomes[1][1].gaps)} s" if options.peer else ""
    bar.check(p99 < GOAL, f"p99 {p99:.2f} s of {len(ours.gaps)}{against}")
    bar.check(not ours.lost, f"{ours.acknowledged} writes acknowledged, {len(ours.lost)} of them lost")
    bar.notes.append(
        "From the kill to the first acknowledgement of a write begun after the process was dead. A writer on "
        "each of the 3 managers creates configs all the time; all that were acknowledged are looked for at "
        f"the end. Meanwhile {ours.refused} of Shoal's writes were refused or unanswered."
    )
    return bar
