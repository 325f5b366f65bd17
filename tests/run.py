"""Every test, as `sudo make test` runs them: pure ones in parallel, then those that share the kernel.

Ends with an audit: whatever the suite has left on the machine fails it.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support.leftovers import Leftovers

STAGES = (
    (
        "pure tests",
        [
            *("tests/unit", "tests/compatibility", "tests/guarantees", "tests/simulator", "tests/chaos"),
            *("-n", "2", "-m", "not host and not playground and not realtime"),
        ],
    ),
    (
        "tests on this kernel",
        [
            *("tests/unit", "tests/host", "tests/guarantees", "tests/chaos"),
            *("-m", "(host or realtime) and not playground"),
        ],
    ),
    (
        "tests on playground hosts",
        ["tests/playground", "tests/host", "tests/guarantees", "tests/chaos", "-m", "playground"],
    ),
)
NO_TESTS = 5  # pytest's exit status


def main() -> int:
    """Run all stages; the exit status is the first failure's."""
    os.environ["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # setup/tests' tools
    )
    before = Leftovers.find()
    failed = 0
    for title, arguments in STAGES:
        begun = time.monotonic()
        print(f"== {title}", flush=True)
        status = subprocess.call([sys.executable, "-m", "pytest", "-q", *arguments, *sys.argv[1:]])
        print(f"== {title}: {time.monotonic() - begun:.0f} s, exit status {status}", flush=True)
        failed = failed or (0 if status == NO_TESTS and sys.argv[1:] else status)
    new = Leftovers.find().beyond(before)
    for what in new:
        print(f"left over: {what}", flush=True)
    print(f"== left-overs: {len(new)}", flush=True)
    return failed or (1 if new else 0)


if __name__ == "__main__":
    sys.exit(main())
