"""Seeds keep their promises, replay exactly, and see bugs that are planted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.__main__ import HASH_SEED
from tests.simulator.planted import PLANTS

ROOT = Path(__file__).parents[2]
FAILED = Path(__file__).with_name("seeds.txt")
BLOCK = 50
ENOUGH = 30
"""Seeds within which a planted bug must be seen."""

pytestmark = pytest.mark.timeout(900)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The simulator, as `make simulate` runs it."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulator", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": HASH_SEED},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("block", range(4))
def test_fresh_seeds_keep_every_promise(block: int) -> None:
    done = run("--seeds", str(BLOCK), "--start", str(1 + block * BLOCK))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_seed_that_ever_failed_keeps_every_promise() -> None:
    seeds = [line.split()[0] for line in FAILED.read_text().splitlines() if line[:1].isdigit()]
    assert seeds
    done = run("--list", ",".join(seeds))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_replays_exactly_whatever_ran_before() -> None:
    def traces(start: int, seeds: int) -> dict[str, str]:
        done = run("--digests", "--start", str(start), "--seeds", str(seeds))
        words = [line.split() for line in done.stdout.splitlines() if " trace " in line]
        return {seed: trace for _, seed, _, trace in words}

    first, second = traces(11, 3), traces(12, 2)
    assert {seed: first[seed] for seed in second} == second
    assert len(set(first.values())) == 3


@pytest.mark.parametrize("bug", PLANTS)
def test_a_planted_bug_is_seen(bug: str) -> None:
    done = run("--plant", bug, "--seeds", str(ENOUGH))
    assert done.returncode == 0, done.stdout + done.stderr
