"""Bar 6: memory in PSS, idle and with 100 tasks, by kind of process."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from bench.cluster import (
    SHOAL,
    Options,
    create,
    host_processes,
    playground,
    remove,
    sleepers,
    wait_running,
)
from bench.peer import Daemon
from bench.report import Bar

COUNT = 100
MANAGER_GOAL, SHOALD_GOAL, ALL_GOAL = 100.0, 70.0, 250.0
"""MB."""
SETTLE = 10.0
KINDS = (
    ("manager", "-m manager "),
    ("shoald", "bin/shoald "),
    ("conmon", "conmon "),
    ("crun", "crun "),
    ("dockerd", "dockerd --data-root"),
    ("shims", "containerd-shim"),
    ("containerd", "containerd "),
)
"""What a command line of each kind holds. Containers' own processes and the playground's are of no kind."""


def kind_of(command: str) -> str:
    """The kind of a process; empty for what isn't the engine's."""
    return next((kind for kind, mark in KINDS if mark in f"{command} "), "")


def rollup(pid: int) -> dict[str, float]:
    """A process's memory in MB (10^6 bytes): Rss, Pss, Private_Dirty, … (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}


def pair_share(memory: dict[str, float]) -> float:
    """What PSS would be if every page that is shared at all were shared by two: a node with nothing else."""
    return sum(
        value / (2 if name.startswith("Shared") else 1)
        for name, value in memory.items()
        if name.startswith(("Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty"))
    )


class Usage:
    """The engine's processes on one host."""

    def __init__(self, found: Iterator[tuple[str, dict[str, float]]]) -> None:
        self.pss: defaultdict[str, float] = defaultdict(float)
        self.pair_share: defaultdict[str, float] = defaultdict(float)
        self.count: Counter[str] = Counter()
        for kind, memory in found:
            self.pss[kind] += memory["Pss"]
            self.pair_share[kind] += pair_share(memory)
            self.count[kind] += 1

    @property
    def total(self) -> float:
        """MB."""
        return sum(self.pss.values())

    def __str__(self) -> str:
        parts = [f"{self.count[k]} {k} {v:.1f}" if self.count[k] > 1 else f"{k} {v:.1f}" for k, v in self]
        return " + ".join(parts)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(self.pss.items())


def measure(daemon: Daemon, options: Options) -> tuple[Usage, Usage, Usage]:
    """Idle in a cluster of its own; with COUNT tasks; idle again."""
    with playground(daemon, 1, 1, options.image) as place:

        def usage() -> Usage:
            time.sleep(SETTLE)
            commands = host_processes(place, "host1")
            return Usage((kind, rollup(pid)) for pid, line in commands.items() if (kind := kind_of(line)))

        engine = place.engine("host1")
        idle = usage()
        service = create(engine, sleepers("sleep", COUNT))
        wait_running(engine, service, COUNT)
        busy = usage()
        remove(engine, service)
        return idle, busy, usage()


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "6. Memory (MB, PSS)",
        f"idle: manager under {MANAGER_GOAL:.0f}, shoald under {SHOALD_GOAL:.0f}; with {COUNT} tasks all of "
        f"Shoal's processes on the node, conmons included, under {ALL_GOAL:.0f}",
        ("", "idle", f"with {COUNT} tasks", "the tasks removed"),
    )
    totals = []
    for daemon in [SHOAL, *([options.peer] if options.peer else [])]:
        usages = measure(daemon, options)
        totals.append([usage.total for usage in usages])
        bar.rows.append((daemon.name, *(f"{usage} = **{usage.total:.1f}**" for usage in usages)))
        if daemon is SHOAL:
            idle, busy, _ = usages
            bar.check(idle.pss["manager"] < MANAGER_GOAL, f"idle manager {idle.pss['manager']:.1f}")
            bar.check(idle.pss["shoald"] < SHOALD_GOAL, f"idle shoald {idle.pss['shoald']:.1f}")
            bar.check(busy.total < ALL_GOAL, f"all with {COUNT} tasks {busy.total:.1f}")
            alone = " and ".join(f"{kind} {idle.pair_share[kind]:.1f}" for kind in ("manager", "shoald"))
            assert busy.count["conmon"] == COUNT, f"{COUNT} conmons, not {busy.count['conmon']}"
    if options.peer:
        ratios = [f"{ours / theirs:.2f}" for ours, theirs in zip(*totals, strict=True)]
        bar.rows.append(("ratio", *ratios))
    bar.notes.append(
        f"One node that is manager and worker, default network, {SETTLE:.0f} s after each change; the "
        "containers' own processes do not count. The playground's own Python processes share pages of Python "
        f"with Shoal's; counting every shared page as shared by two only, {alone} when idle."
    )
    return bar
