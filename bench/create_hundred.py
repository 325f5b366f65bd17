"""Bar 2: how long `service create --replicas 100` takes, against dockerd and against conmon + crun alone."""

import re
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

from bench.cluster import SHOAL, Options, create, playground, remove, sleepers, wait_running
from bench.peer import Daemon
from bench.report import Bar, seconds
from shoal.cli.client import Engine

COUNT = 100
ROUNDS = 3
GOALS = {"default": 3.0, "overlay": 4.0}
"""How many times faster than dockerd."""
RECORDED = {"default": (7.8, 9.7), "overlay": (11.4, 17.6)}
"""dockerd 28.2.2 on a machine of this kind, seconds to create and to remove: newer than most packages, and
for where no dockerd can be had."""
SETTLE = 2.0


def raw_limit() -> float:
    """Seconds in which conmon and crun alone start COUNT containers with our config.json, at their best."""
    command = [sys.executable, "-m", "bench.runtime_limit", str(COUNT)]
    table = subprocess.check_output(command, text=True)
    found = re.findall(r"^raw, \d+ threads, our config\.json +([\d.]+)", table, re.MULTILINE)
    return min(float(value) for value in found)


class Contender:
    """One engine and its times."""

    def __init__(self, daemon: Daemon, engine: Engine) -> None:
        self.name = daemon.name
        self._engine = engine
        self._overlay = str(engine.post("/networks/create", {"Name": "bench", "Driver": "overlay"})["Id"])
        self.up: dict[str, list[float]] = {network: [] for network in GOALS}
        self.down: dict[str, list[float]] = {network: [] for network in GOALS}

    def measure(self, network: str, count: int) -> tuple[float, float]:
        """Seconds until `count` tasks run, and until they are gone."""
        networks = [self._overlay] if network == "overlay" else []
        spec = sleepers(f"sleep-{network}", count, networks)
        begun = time.perf_counter()
        service = create(self._engine, spec)
        wait_running(self._engine, service, count)
        up = time.perf_counter() - begun
        time.sleep(SETTLE)
        begun = time.perf_counter()
        remove(self._engine, service)
        down = time.perf_counter() - begun
        time.sleep(SETTLE)
        return up, down

    def round(self, network: str) -> None:
        """Measure once."""
        up, down = self.measure(network, COUNT)
        self.up[network].append(up)
        self.down[network].append(down)


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        f"2. Service create with {COUNT} replicas on one node",
        "wall time from the request to all running: at most 1/3 of dockerd's on the default network, "
        "1/4 on an overlay; image present",
        ("s: median (least-greatest)", "default: create", "default: remove", "overlay: create", "remove"),
    )
    raw = raw_limit()
    with ExitStack() as stack:
        contenders = []
        for daemon in [SHOAL, *([options.peer] if options.peer else [])]:
            place = stack.enter_context(playground(daemon, 1, 1, options.image))
            contenders.append(Contender(daemon, place.engine("host1")))
        for network in GOALS:
            for contender in contenders:
                contender.measure(network, 3)  # warm: first use loads programs and creates the network
        for _ in range(options.rounds(ROUNDS)):
            for network in GOALS:
                for contender in contenders:
                    contender.round(network)
    for contender in contenders:
        cells = [seconds(times[network]) for network in GOALS for times in (contender.up, contender.down)]
        bar.rows.append((contender.name, *cells))
    ours, *peers = contenders
    for network, goal in GOALS.items():
        mine = statistics.median(ours.up[network])
        recorded = RECORDED[network][0]
        theirs = statistics.median(peers[0].up[network]) if peers else recorded
        against = f"{theirs:.2f} s of {peers[0].name}: 1/{theirs / mine:.1f}; against " if peers else ""
        bar.check(
            mine * goal <= theirs,
            f"{network} network: {mine:.2f} s against {against}{recorded:.1f} s recorded earlier of dockerd "
            f"28.2.2: 1/{recorded / mine:.1f}; {mine / raw:.1f} times the raw limit of {raw:.2f} s",
        )
    figures = [f"{figure:.1f}" for network in GOALS for figure in RECORDED[network]]
    bar.rows.append(("dockerd 28.2.2, recorded earlier", *figures))
    bar.notes.append(
        f"Raw limit: {raw:.2f} s for conmon + crun alone with the same config.json, no network, best of 1, 2 "
        f"and 4 threads (`python -m bench.runtime_limit`). {options.rounds(ROUNDS)} rounds, engines in turn "
        "on playground hosts of the same make, REST only, /tasks asked every 50 ms. dockerd 28.2.2 was "
        "recorded outside this run."
    )
    return bar
