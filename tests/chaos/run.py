"""`make chaos`: random traffic against a real cluster while things go wrong, and a verdict on what was seen.

Usage: python -m tests.chaos.run [--minutes 60] [--seed SEED]. Needs root. The seed fixes what clients and
faults choose; when what happens is up to the machine. Exit status 0 when no promise was broken; otherwise the
history and the daemons' logs stay in build/chaos/SEED.
"""

import argparse
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.chaos import judging
from tests.chaos.arena import Arena, arena
from tests.chaos.faults import Faults
from tests.chaos.history import History, Operation, Seen
from tests.chaos.traffic import PATHS, TIMEOUT, Client, body_of, name_of, seen_in
from tests.chaos.watching import Watcher, wait_told
from tests.chaos.wire import Answer, Api, NoAnswer, NotSent
from tests.support.images import build_image

CLIENTS_PER_MANAGER = 2
RECOVERY_SECONDS = 60.0
"""How long a healed cluster may take until it acknowledges a write and all streams have told it."""
KEPT = Path("build/chaos")


@dataclass
class Result:
    """What a run showed."""

    history: History
    violations: list[str]
    faults: Counter[str]
    seconds: float
    lost: int | None
    duplicated: int | None
    """None: the cluster could not be read in the end, so nothing could be counted."""

    def summary(self) -> str:
        """For people."""
        counts = judging.outcomes(self.history)
        ends = Counter(str(stream.end) for stream in self.history.streams)
        events = sum(len(stream.changes) for stream in self.history.streams)
        lines = [
            f"seed {self.history.seed}, {self.seconds:.0f} s",
            f"operations: {sum(counts.values())} ({_counted(counts)})",
            f"event streams: {len(self.history.streams)} ({_counted(ends)}), {events} events",
            f"tasks: {len({seen.id for seen in self.history.tasks})} in {len(self.history.tasks)} sightings",
            f"faults: {sum(self.faults.values())} ({_counted(self.faults)})",
            f"longest time without an acknowledged write: {judging.longest_gap(self.history)}",
            f"acknowledged writes lost: {figure(self.lost)}, duplicated: {figure(self.duplicated)}",
            f"violations: {len(self.violations)}",
        ]
        return "\n".join([*lines, *self.violations])

    def keep(self, place: Arena, directory: Path) -> None:
        """The history and the daemons' logs, for a look."""
        directory.mkdir(parents=True, exist_ok=True)
        self.history.save(directory / "history.json")
        (directory / "summary.txt").write_text(self.summary() + "\n")
        place.keep_logs(directory)


def figure(count: int | None) -> str:
    """A count, where there is one."""
    return "not counted" if count is None else str(count)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"


class Run:
    """Clients, watchers and the record of one run."""

    def __init__(self, place: Arena, seed: str, *, tasks: bool) -> None:
        self.arena = place
        self.history = History(seed)
        self._apis = {host: Api(place.socket(host), TIMEOUT) for host in place.hosts}
        self._initial = {key: objects[0] for key, objects in self._everything("node").items()}
        begun = time.monotonic()
        self.clients = [
            Client(
                f"{host}.{number}",
                self._apis[host],
                self.history,
                random.Random(f"{seed} {host} {number}"),
                begun,
                tasks,
            )
            for host in place.hosts
            for number in range(CLIENTS_PER_MANAGER)
        ]
        self.watchers = [Watcher(host, self._apis[host], self.history) for host in place.hosts]

    def start(self) -> None:
        """Begin to call and to watch."""
        for thread in (*self.watchers, *self.clients):
            thread.start()

    def acknowledged(self) -> int:
        """How many writes have been acknowledged."""
        return sum(one.outcome == "ok" and one.action != "read" for one in self.history.operations)

    def stop_clients(self) -> None:
        """No more calls."""
        for client in self.clients:
            client.finish()

    def judge(self, seconds: float, faults: Counter[str] | None = None) -> Result:
        """Stop everything, look at what there is at the end, and judge. For a cluster that is healed."""
        self.stop_clients()
        final: dict[tuple[str, str], list[Seen]] = {}
        last = 0
        try:
            last = self._mark()
            for host in self.arena.hosts:
                for kind in PATHS:
                    final |= self._final(kind, self._apis[host])
            if late := wait_told(self.watchers, last, RECOVERY_SECONDS):
                self.history.problems.append(f"the last change was not told within a minute: {late}")
        except TimeoutError as error:
            self.history.problems.append(str(error))
        for watcher in self.watchers:
            watcher.finish()
        found = judging.violations(self.history, self._initial, last)
        lost, duplicated = judging.lost_and_duplicated(self.history, final) if final else (None, None)
        return Result(self.history, found, faults or Counter(), seconds, lost, duplicated)

    def _mark(self) -> int:
        """Write once more; the index of that."""
        name = f"mark-{secrets.token_hex(4)}"
        api = self._apis[self.arena.hosts[0]]
        _patiently("a write", lambda: api.call("POST", "/configs/create", body_of("config", name, name)), 201)
        found = _patiently("a read", lambda: api.call("GET", f"/configs/{name}"), 200)
        return int(found["Version"]["Index"])

    def _final(self, kind: str, api: Api) -> dict[tuple[str, str], list[Seen]]:
        """The last reads: all names that were ever used, through one manager."""
        names = {one.name for one in self.history.operations if one.kind == kind}
        invoked = time.monotonic_ns()
        items = _patiently("a read", lambda: api.call("GET", PATHS[kind]), 200)
        found: dict[tuple[str, str], list[Seen]] = {}
        for item in items:
            found.setdefault((kind, name_of(kind, item)), []).append(seen_in(item))
        for name in names:
            objects = found.get((kind, name), [])
            self.history.operations.append(
                Operation(
                    client="final",
                    kind=kind,
                    name=name,
                    action="read",
                    invoked=invoked,
                    returned=time.monotonic_ns(),
                    outcome="ok",
                    seen=objects[0] if objects else None,
                )
            )
        return found

    def _everything(self, kind: str) -> dict[tuple[str, str], list[Seen]]:
        api = self._apis[self.arena.hosts[0]]
        items = _patiently("a read", lambda: api.call("GET", PATHS[kind]), 200)
        return {(kind, name_of(kind, item)): [seen_in(item)] for item in items}


def _patiently(what: str, call: Callable[[], Answer], status: int) -> Any:
    """Ask until it works; the content. Raises TimeoutError."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    problem = ""
    while time.monotonic() < deadline:
        try:
            answer = call()
        except (NotSent, NoAnswer) as error:
            problem = str(error) or type(error).__name__
        else:
            if answer.status == status:
                return answer.content
            problem = f"{answer.status} {answer.message}"
        time.sleep(0.1)
    raise TimeoutError(f"{what} was not possible for {RECOVERY_SECONDS:.0f} s in a healed cluster: {problem}")


def chaos(seed: str, seconds: float, kept: Path, *, image: Path | None = None) -> Result:
    """One run on a cluster of its own. What shows a violation is kept in `kept`."""
    with arena() as place:
        if image is not None:
            place.load(image)
        run = Run(place, seed, tasks=image is not None)
        faults = Faults(place, random.Random(f"{seed} faults"), run.history)
        begun = time.monotonic()
        run.start()
        faults.run(begun + seconds)
        faults.heal()
        result = run.judge(time.monotonic() - begun, faults.counts)
        if result.violations:
            result.keep(place, kept)
        return result


def _ended(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that the hosts are taken down


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", default="")
    given = parser.parse_args()
    seed = given.seed or secrets.token_hex(4)
    signal.signal(signal.SIGTERM, _ended)
    print(f"chaos for {given.minutes:g} minutes; again with SEED={seed}", flush=True)
    kept = KEPT / seed
    with tempfile.TemporaryDirectory(prefix="shoal-chaos-") as scratch:
        result = chaos(seed, given.minutes * 60, kept, image=build_image(Path(scratch), "busybox:latest"))
    print(result.summary())
    if result.violations:
        print(f"history and logs: {kept}")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
