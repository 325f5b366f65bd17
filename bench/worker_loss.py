"""Bar 4: a worker host loses power: how long until its tasks run elsewhere."""

import time

from bench.cluster import (
    SHOAL,
    Options,
    create,
    playground,
    running,
    sleepers,
    until,
    wait_healthy,
    wait_running,
)
from bench.peer import Daemon
from bench.report import Bar, listed, percentile
from shoal.playground.playground import Playground

LOSSES, PEER_LOSSES = 10, 3
GOAL = 6.0
HOSTS, MANAGERS = 5, 3
WORKERS = ("host4", "host5")
REPLICAS = 4
SETTLE = 2.0


def lose(place: Playground, victim: str, number: int) -> tuple[float, float]:
    """Seconds until the node is down, and until all replicas run elsewhere; then the host is back."""
    engine = place.engine("host1")
    service = create(engine, sleepers(f"work-{number}", REPLICAS, constraints=["node.role==worker"]))
    wait_running(engine, service, REPLICAS)
    names = {node["ID"]: node["Description"]["Hostname"] for node in engine.get("/nodes")}
    (dead,) = (id for id, name in names.items() if name == victim)
    lost = sum(task["NodeID"] == dead for task in running(engine, service))
    assert lost == REPLICAS / len(WORKERS), f"tasks are spread over the workers: {lost} on {victim}"
    down = 0.0
    begun = time.monotonic()
    place.kill(victim)

    def elsewhere() -> bool:
        nonlocal down
        if not down and engine.get(f"/nodes/{dead}")["Status"]["State"] == "down":
            down = time.monotonic() - begun
        tasks = running(engine, service)
        return len(tasks) == REPLICAS and all(task["NodeID"] != dead for task in tasks)

    until("all replicas run elsewhere", elsewhere)
    moved = time.monotonic() - begun
    engine.delete(f"/services/{service}")
    place.start(victim)
    wait_healthy(place, HOSTS, MANAGERS)
    time.sleep(SETTLE)
    return down, moved


def measure(daemon: Daemon, options: Options, losses: int) -> list[tuple[float, float]]:
    """Take the power from one worker, then from the other, and so on."""
    with playground(daemon, HOSTS, MANAGERS, options.image) as place:
        return [lose(place, WORKERS[number % len(WORKERS)], number) for number in range(losses)]


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "4. Power loss of a worker host",
        f"its tasks run elsewhere within {GOAL:.0f} s (p95 of {LOSSES})",
        ("", "losses", "node down: p50", "tasks run elsewhere: p50", "p95", "max"),
    )
    contenders = [(SHOAL, LOSSES), *([(options.peer, PEER_LOSSES)] if options.peer else [])]
    moves = []
    for daemon, losses in contenders:
        pairs = measure(daemon, options, options.rounds(losses))
        moved = [moved for _, moved in pairs]
        moves.append(moved)
        figures = [percentile([down for down, _ in pairs], 0.5)]
        figures += [percentile(moved, share) for share in (0.5, 0.95, 1.0)]
        bar.rows.append((daemon.name, str(len(pairs)), *(f"{figure:.2f} s" for figure in figures)))
        bar.notes.append(f"{daemon.name}, all: {listed(moved)} s")
    p95 = percentile(moves[0], 0.95)
    against = f"; {options.peer.name}: {listed(moves[1])} s" if options.peer else ""
    bar.check(p95 <= GOAL, f"p95 {p95:.2f} s of {len(moves[0])}{against}")
    bar.notes.append(
        f"{MANAGERS} managers, {len(WORKERS)} workers; {REPLICAS} replicas on the workers, half of them on "
        "the one that loses its power; timed from before the kill."
    )
    return bar
