"""`make fuzz`: every target for a share of the time, led by coverage (atheris, libFuzzer).

An input that breaks a target is kept in .fuzz/TARGET/. Look at it with `python -m tests.fuzz.run --only
TARGET FILE`, mend the parser, add it to tests/unit/fuzz/test_found.py. Corpora are kept, too: runs go on.
"""

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PLACE = Path(".fuzz")
INSTRUMENTED = ["cluster", "manager", "netplane", "worker", "dns"]
"""Packages whose branches guide the search."""
MAX_BYTES = 1 << 16
SECONDS_PER_INPUT = 5
MEGABYTES = 1024


def fuzz(name: str, arguments: list[str]) -> None:
    """In a process of its own: does not return."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Run the targets one after another; the exit status says whether one broke."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Look for inputs that break Shoal's parsers.")
    parser.add_argument("--minutes", type=float, default=20.0, help="all targets together")
    parser.add_argument("--only", metavar="TARGET", help="one target")
    parser.add_argument("inputs", nargs="*", help="inputs to try again (with --only)")
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[2], sys.argv[3:])
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(
            "fuzz: atheris is not installed: `pip install atheris` (it has wheels for some platforms only)."
        )
        print("fuzz: `make test` runs the same targets with Hypothesis.")
        return 2
    from tests.fuzz.targets import TARGETS

    if given.only is not None and given.only not in TARGETS:
        parser.error(f"--only {given.only}: choose one of {', '.join(TARGETS)}")
    chosen = {name: TARGETS[name] for name in ([given.only] if given.only else TARGETS)}
    share = max(1, round(given.minutes * 60 / len(chosen)))
    broken = [
        name for name, target in chosen.items() if not survives(name, target.samples, share, given.inputs)
    ]
    for name in broken:
        print(f"fuzz: {name} broke; see {PLACE / name}", flush=True)
    return 1 if broken else 0


def survives(name: str, samples: Sequence[bytes], seconds: int, inputs: list[str]) -> bool:
    """Run one target in a process of its own, with bounds on time and memory for each input."""
    corpus = PLACE / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        (corpus / hashlib.sha256(sample).hexdigest()[:16]).write_bytes(sample)
    options = inputs or [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={MEGABYTES}",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={PLACE / name}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    print(f"== {name}: {seconds} s", flush=True)
    command = [sys.executable, "-m", "tests.fuzz.run", "--child", name, *options]
    log = PLACE / name / "log"
    with log.open("w") as output:
        status = subprocess.call(command, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": "."})
    tail = log.read_text(errors="replace").splitlines()
    shown = tail[-30:] if status else [line for line in tail if "number_of_executed" in line]
    print(*shown, sep="\n", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
