"""python -m tests.simulator [--start S] [--seeds N] [--jobs J] [--verbose] [--only KIND,…]"""

import argparse
import gc
import multiprocessing
import os
import sys
import time
from pathlib import Path

HASH_SEED = "0"
PROGRESS = 250


def fix_hashing() -> None:
    """Start again with a fixed hash seed: sets of strings must iterate alike in every run."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulator", *sys.argv[1:]])


def run_one(arguments: "tuple[int, frozenset[str] | None]") -> "tuple[int, str, str, float, float]":
    """One seed, in a worker."""
    from tests.simulator.scenario import simulate

    seed, kinds = arguments
    result = simulate(seed, kinds=kinds)
    gc.collect()
    return seed, result.violation, result.digest, result.virtual, result.cpu


def main() -> int:
    """Run seeds; the exit status is the number of those that failed, at most 100."""
    from tests.simulator.faults import KINDS

    parser = argparse.ArgumentParser(prog="tests.simulator", description=__doc__)
    parser.add_argument("--start", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--list", default="", help="these seeds: 3,17,…")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="print the whole story, with what Shoal logs")
    parser.add_argument("--lines", type=int, default=60, help="lines of a failing seed's story")
    parser.add_argument("--only", default="", help="only these kinds of faults")
    parser.add_argument("--without", default="", help="all kinds of faults but these")
    parser.add_argument(
        "--minimise", action="store_true", help="find out which kinds of faults a failure needs"
    )
    parser.add_argument("--failed", type=Path, help="append failing seeds to this file")
    parser.add_argument("--plant", default="", help="plant this bug, and stop at the first seed that sees it")
    parser.add_argument("--digests", action="store_true", help="print every seed's trace")
    given = parser.parse_args()
    if given.plant:
        return _see_planted(given)
    kinds = frozenset(given.only.split(",")) if given.only else frozenset(KINDS)
    kinds -= frozenset(given.without.split(","))
    if kinds - set(KINDS):
        parser.error(f"the kinds of faults are {', '.join(KINDS)}")
    chosen = None if kinds == set(KINDS) else kinds
    if given.verbose or given.minimise:
        return _look_closely(given, chosen)
    begun = time.monotonic()
    numbers = range(given.start, given.start + given.seeds)
    seeds = [(seed, chosen) for seed in (map(int, given.list.split(",")) if given.list else numbers)]
    failed: list[int] = []
    virtual = cpu = 0.0
    pool = multiprocessing.Pool(given.jobs) if given.jobs > 1 else None
    results = pool.imap(run_one, seeds, chunksize=4) if pool is not None else map(run_one, seeds)
    for done, (seed, violation, digest, lasted, took) in enumerate(results):
        if done and done % PROGRESS == 0:
            print(f"… {done} seeds, {len(failed)} failed, {time.monotonic() - begun:.0f} s", flush=True)
        if given.digests:
            print(f"seed {seed} trace {digest}")
        virtual += lasted
        cpu += took
        if violation:
            failed.append(seed)
            print(f"seed {seed} FAILED: {violation.splitlines()[0]}", flush=True)
            if len(failed) <= 3:
                _tell(seed, chosen, given.lines)
            if given.failed is not None:
                with given.failed.open("a") as file:
                    file.write(f"{seed} {violation.splitlines()[0]}\n")
    if pool is not None:
        pool.close()
    print(
        f"{len(seeds)} seeds, {len(failed)} failed{': ' + ' '.join(map(str, failed)) if failed else ''}; "
        f"{virtual:.0f} virtual s in {cpu:.1f} s of CPU ({virtual / max(cpu, 1e-9):.0f} ×), "
        f"{cpu / len(seeds):.2f} s each, {time.monotonic() - begun:.0f} s in all"
    )
    return min(len(failed), 100)


def _tell(seed: int, kinds: "frozenset[str] | None", lines: int) -> None:
    from tests.simulator.scenario import simulate

    result = simulate(seed, kinds=kinds)
    print("\n".join(result.story[-lines:]))
    print(f"  again: python -m tests.simulator --start {seed} --seeds 1 --verbose", flush=True)


def _see_planted(given: argparse.Namespace) -> int:
    """0 when a seed sees the bug."""
    from tests.simulator.planted import PLANTS, planted
    from tests.simulator.scenario import simulate

    for seed in range(given.start, given.start + given.seeds):
        with planted(given.plant):
            plant = PLANTS[given.plant]
            result = simulate(seed, kinds=plant.faults, busy_for=plant.busy)
        if result.violation:
            print(f"seed {seed} sees {given.plant!r}: {result.violation.splitlines()[0]}")
            return 0
    print(f"{given.seeds} seeds do not see {given.plant!r}")
    return 1


def _look_closely(given: argparse.Namespace, kinds: "frozenset[str] | None") -> int:
    from tests.simulator.faults import KINDS
    from tests.simulator.scenario import simulate

    if given.minimise:
        left = set(kinds or KINDS)
        for kind in KINDS:
            if kind in left and simulate(given.start, kinds=frozenset(left - {kind})).violation:
                left.discard(kind)
        print(f"seed {given.start} still fails with only: {','.join(sorted(left)) or 'no fault at all'}")
        kinds = frozenset(left)
    result = simulate(given.start, kinds=kinds, verbose=given.verbose)
    print("\n".join(result.story if given.verbose else result.story[-given.lines :]))
    print(f"seed {given.start}: {result.violation or 'no promise broken'} (trace {result.digest})")
    return 1 if result.violation else 0


if __name__ == "__main__":
    fix_hashing()
    sys.exit(main())
