"""100 MB of state: what snapshots, a new manager and restarts cost."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cluster import Options
from bench.members import MemberProcess, Members, members
from bench.report import Bar, percentile

STALL, RESTART = 0.2, 5.0
MANAGERS = 3
COMPACT_ENTRIES = 3000
"""A snapshot is taken after so many entries, to see several in a short time."""
FILL_PORTIONS = 20
PAYLOAD = 200
CALM_SECONDS = 5.0
SNAPSHOTS = 5
SNAPSHOT_SECONDS = 90.0


@dataclass(frozen=True)
class State:
    """What is filled in."""

    name: str
    files: int
    file_bytes: int
    tasks: int


STATES = (
    State("large configs and secrets", 200, 480_000, 1_000),
    State("100,000 tasks of 5,000 services", 100, 10_000, 100_000),
)
SMALL = (State("a little", 20, 100_000, 1_000),)


@dataclass(frozen=True)
class Found:
    """What one state showed; seconds and bytes."""

    size: int
    calm: float
    calm_p50: float
    snapshot_stall: float
    snapshot_p99: float
    snapshots: int
    join_stall: float
    join: float
    elections: int
    restart: float
    restart_read: float
    restart_all: float


Timeline = Sequence[tuple[float, float]]


def _load(leader: MemberProcess, work: Callable[[], None]) -> Timeline:
    """Write one after the other while the work is done: when each write began, and how long it took."""
    leader.ask("load", size=PAYLOAD)
    try:
        work()
    finally:
        timeline: Timeline = leader.ask("unload")["timeline"]
    return timeline


def _fill(cluster: Members, state: State) -> None:
    """In portions; one is repeated when the leader changes meanwhile."""
    filled, term = 0, cluster.leader().ask("status")["term"]
    while filled < FILL_PORTIONS:
        leader = cluster.leader()
        portion = {"files": state.files // FILL_PORTIONS, "tasks": state.tasks // FILL_PORTIONS}
        try:
            leader.ask("fill", file_bytes=state.file_bytes, **portion)
            filled += 1
        except OSError as error:
            print(f"  filling again: {error}", flush=True)
    print(f"  elections while filling: {cluster.leader().ask('status')['term'] - term}", flush=True)


def _longest(timeline: Timeline) -> float:
    return max(taken for _, taken in timeline)


def _wait_for_snapshots(leader: MemberProcess, count: int) -> int:
    """Until the leader has taken so many more; how many it did."""
    deadline, seen, taken = time.monotonic() + SNAPSHOT_SECONDS, leader.ask("status")["snapshot"], 0
    while taken < count and time.monotonic() < deadline:
        time.sleep(0.05)
        newest = leader.ask("status")["snapshot"]
        taken += newest != seen
        seen = newest
    return taken


def _catch_up(leader: MemberProcess, member: MemberProcess) -> float:
    """Wait until the member has applied what the leader has now; when it had."""
    index = leader.ask("status")["applied"]
    return float(member.ask("applied", index=index)["at"])


def _join(cluster: Members, leader: MemberProcess) -> float:
    begun = time.monotonic()
    cluster.join()
    return _catch_up(leader, cluster.all[-1]) - begun


def _restart(leader: MemberProcess, member: MemberProcess) -> float:
    member.kill()
    begun = time.monotonic()
    member.start()
    return _catch_up(leader, member) - begun


def _restart_all(cluster: Members) -> float:
    """All at once: until a write is accepted."""
    for member in cluster.all:
        member.kill()
    begun = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(MemberProcess.start, cluster.all))
    cluster.leader().ask("write", clients=1, seconds=0, size=PAYLOAD)
    return time.monotonic() - begun


def measure(state: State, snapshots: int) -> Found:
    """Fill a cluster with the state and put it to the tests."""
    with members(MANAGERS, compact_entries=COMPACT_ENTRIES) as cluster:
        _fill(cluster, state)
        leader = cluster.leader()
        for member in cluster.all:
            _catch_up(leader, member)
        time.sleep(2)  # a snapshot that the filling began is written
        term = leader.ask("status")["term"]
        calm = _load(leader, lambda: time.sleep(CALM_SECONDS))
        counted: list[int] = []
        during = _load(leader, lambda: counted.append(_wait_for_snapshots(leader, snapshots)))
        size = (Path(leader.birth.directory) / "snapshot").stat().st_size
        joined: list[float] = []
        joining = _load(leader, lambda: joined.append(_join(cluster, leader)))
        elections = leader.ask("status")["term"] - term
        follower = next(member for member in cluster.all[:MANAGERS] if member is not leader)
        restart = _restart(leader, follower)
        _report(leader.ask("status"), calm, during, joining)
        return Found(
            size=size,
            calm=_longest(calm),
            calm_p50=percentile([taken for _, taken in calm], 0.5),
            snapshot_stall=_longest(during),
            snapshot_p99=percentile([taken for _, taken in during], 0.99),
            snapshots=counted[0],
            join_stall=_longest(joining),
            join=joined[0],
            elections=elections,
            restart=restart,
            restart_read=follower.started["seconds"],
            restart_all=_restart_all(cluster),
        )


def _report(status: dict[str, Any], *timelines: Timeline) -> None:
    """What helps to understand a stall."""
    for timeline in timelines:
        slow = sorted((taken for _, taken in timeline), reverse=True)[:5]
        print("  slowest:", ", ".join(f"{1000 * taken:.0f} ms" for taken in slow), flush=True)
    print("  full collections:", [f"{1000 * taken:.0f} ms" for taken in status["collections"]], flush=True)


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "9. 100 MB of state",
        f"a snapshot stalls the leader's commits by less than {1000 * STALL:.0f} ms, and so does a new "
        f"manager that catches up from it, without an election; restart from disk in under {RESTART:.0f} s",
        (
            "state",
            "snapshot",
            "calm: p50",
            "longest",
            "snapshots",
            "longest meanwhile",
            "p99",
            "join",
            "longest meanwhile",
            "restart",
            "all restart",
        ),
    )
    for state in SMALL if options.quick else STATES:
        print(f"  {state.name}", flush=True)
        found = measure(state, options.rounds(SNAPSHOTS))
        size = f"{found.size / 1e6:.0f} MB"
        ms = [f"{1000 * one:.1f} ms" for one in (found.calm_p50, found.calm)]
        ms_during = [f"{1000 * one:.0f} ms" for one in (found.snapshot_stall, found.snapshot_p99)]
        bar.rows.append(
            (
                state.name,
                size,
                *ms,
                str(found.snapshots),
                *ms_during,
                f"{found.join:.1f} s",
                f"{1000 * found.join_stall:.0f} ms",
                f"{found.restart:.1f} s",
                f"{found.restart_all:.1f} s",
            )
        )
        bar.check(
            found.snapshots > 0 and found.snapshot_stall < STALL,
            f"{state.name} ({size}): the slowest commit during {found.snapshots} snapshots took "
            f"{ms_during[0]} ({ms[1]} in calm)",
        )
        bar.check(
            found.join_stall < STALL and found.elections == 0,
            f"a new manager has it after {found.join:.1f} s, the slowest commit meanwhile took "
            f"{1000 * found.join_stall:.0f} ms, {found.elections} elections",
        )
        bar.check(
            found.restart < RESTART,
            f"a manager that was killed has it again {found.restart:.1f} s after its process started "
            f"({found.restart_read:.1f} s of it for its own disk)",
        )
    bar.notes.append(
        f"{MANAGERS} processes on this machine and one disk, over TLS; every manager takes a snapshot after "
        f"{COMPACT_ENTRIES:,} entries here, so all do at about the same time. One client rewrites a config "
        f"of {PAYLOAD} bytes, one write after the other. Join: from the start of the process until it has "
        "applied what the leader had then. All restart: from the start of all processes at once, after "
        "kill -9 of all, until a write is committed."
    )
    return bar
