"""Every test, as `sudo make test` runs them: pure ones, those on this kernel, those with hosts of their own.

Ends with an audit: whatever the suite has left on the machine fails it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.leftovers import Leftovers

PARALLEL = ("-n", "2", "--dist", "loadfile")  # a module's tests share a cluster


class Stage(NamedTuple):
    """Some of the tests. `real`: they run on the machine's own clock, kernel and processes."""

    title: str
    folders: tuple[str, ...]
    marked: str
    options: tuple[str, ...] = ()
    real: bool = True


STAGES = (
    Stage(
        "pure tests",
        ("tests/unit", "tests/compatibility", "tests/guarantees", "tests/simulator", "tests/chaos"),
        "not host and not playground and not realtime",
        ("-n", "2"),
        real=False,
    ),
    Stage(
        "tests on this kernel",
        ("tests/unit", "tests/host", "tests/guarantees", "tests/chaos", "tests/playground"),
        "(host or realtime or alone) and (alone or not playground)",
    ),
    Stage(
        "tests on playground hosts",
        ("tests/playground", "tests/host", "tests/guarantees", "tests/chaos"),
        "playground and not alone",
        PARALLEL,
    ),
)
FAILED = 1  # pytest's exit statuses
NO_TESTS = 5
RUN_AGAIN = 3
"""So many failed tests of real processes are run once more, alone, as a machine that others hold up can break
any deadline. What passes only then is named; a stage with more failures than these has failed."""


def run(stage: Stage, more: Sequence[str]) -> int:
    """Run a stage's tests; its exit status."""
    cache = Path(".pytest_cache") / stage.title.replace(" ", "-")
    command = [sys.executable, "-m", "pytest", "-q", *stage.folders, "-m", stage.marked]
    command += ["-o", f"cache_dir={cache}", *more]
    status = subprocess.call([*command, "--cache-clear", *stage.options])
    if status != FAILED or not stage.real:
        return status
    failures = sorted(json.loads((cache / "v/cache/lastfailed").read_text()))
    if len(failures) > RUN_AGAIN:
        return status
    print(f"== {stage.title}: {len(failures)} failed, once more", flush=True)
    status = subprocess.call([*command, "--last-failed", "--last-failed-no-failures", "none"])
    if status == 0:
        print("== passed only when run again:", *failures, sep="\n   ", flush=True)
    return status


def main() -> int:
    """Run all stages; the exit status is the first failure's."""
    os.environ["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # setup/tests' tools
    )
    before = Leftovers.find()
    failed = 0
    for stage in STAGES:
        begun = time.monotonic()
        print(f"== {stage.title}", flush=True)
        status = run(stage, sys.argv[1:])
        print(f"== {stage.title}: {time.monotonic() - begun:.0f} s, exit status {status}", flush=True)
        failed = failed or (0 if status == NO_TESTS and sys.argv[1:] else status)
    new = Leftovers.find().beyond(before)
    for what in new:
        print(f"left over: {what}", flush=True)
    print(f"== left-overs: {len(new)}", flush=True)
    return failed or (1 if new else 0)


if __name__ == "__main__":
    sys.exit(main())
