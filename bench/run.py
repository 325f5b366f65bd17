"""`make bench`: the bars, one after the other, against dockerd and raw limits measured in the same run.

Usage: python -m bench.run [--bars create_hundred,memory] [--quick] [--no-peer] [--out FILE]. Needs root. A
whole run writes bench/RESULTS.md; a partial or quick one prints only, unless --out names a file. The exit
status is 0 when every bar is met.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path

from bench import (
    big_state,
    commit_latency,
    create_hundred,
    dns_speed,
    east_west,
    encryption,
    endpoint_change,
    leader_kill,
    list_speed,
    memory,
    mesh_changes,
    mesh_keep_address,
    network_storm,
    peer,
    power_cycles,
    returning,
    rolling_update,
    scale_under_load,
    worker_loss,
)
from bench.cluster import IMAGE, Options
from bench.report import Bar, machine
from cluster.errors import ShoalError, Unavailable
from tests.support.images import build_image
from tests.support.leftovers import Leftovers

BARS: dict[str, Callable[[Options], Bar]] = {
    module.__name__.rpartition(".")[2]: module.run
    for module in (
        create_hundred,
        leader_kill,
        worker_loss,
        scale_under_load,
        memory,
        commit_latency,
        big_state,
        returning,
        power_cycles,
        rolling_update,
        list_speed,
        east_west,
        encryption,
        mesh_keep_address,
        endpoint_change,
        dns_speed,
        mesh_changes,
        network_storm,
    )
}
RESULTS = Path(__file__).with_name("RESULTS.md")
LEFTOVER_SECONDS = 5.0
BREAKS = (
    ShoalError,
    OSError,
    HTTPException,
    subprocess.SubprocessError,
    AssertionError,
    LookupError,
    ValueError,
)


def leftovers(before: Leftovers) -> Bar:
    """Bar 7, for this run: what it has left on the machine."""
    bar = Bar("7. Left-overs", "none: no namespace, mount, cgroup, device, nft table or process", ("what",))
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while (new := Leftovers.find().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.5)  # the kernel takes namespaces down after their last process
    bar.rows += [(what,) for what in new]
    bar.check(not new, f"{len(new)} left by this run (`make test` looks in the same way after all tests)")
    return bar


def measure(name: str, options: Options) -> Bar:
    """Run one bar; one that breaks is a missed bar, and the others go on."""
    print(f"== {name}", flush=True)
    begun = time.monotonic()
    try:
        bar = BARS[name](options)
    except BREAKS as error:
        traceback.print_exc()
        bar = Bar(name, "to be measured", ())
        bar.check(False, f"could not be measured: {type(error).__name__}: {error}")
    print(f"{bar.markdown()}\n== {name}: {time.monotonic() - begun:.0f} s", flush=True)
    return bar


def document(bars: list[Bar], command: str, about: str, begun: datetime, versus: str) -> str:
    """RESULTS.md."""
    verdicts = [met for bar in bars for met, _ in bar.verdicts]
    root = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    ended = datetime.now(UTC)
    head = (
        "# Benchmark results\n\n"
        "Good or bad, as measured; ratios against a peer or a raw limit in the same run. Made by\n"
        f"`{command}` on {begun:%Y-%m-%d %H:%M}-{ended:%H:%M} UTC"
        f"{f', commit {commit}' if commit else ''}.\n\n"
        f"Machine: {about}. Peer: {versus}.\n\n"
        f"**{sum(verdicts)} of {len(verdicts)} goals met.** Bar 1 is `sudo make demo` and `sudo make test` "
        "on a bare machine.\n"
    )
    return "\n".join([head, *(bar.markdown() for bar in bars)])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", default=",".join(BARS), help="which, by module")
    parser.add_argument("--quick", action="store_true", help="one round of everything")
    parser.add_argument("--no-peer", action="store_true", help="without dockerd")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    names = given.bars.split(",")
    if unknown := set(names) - set(BARS):
        parser.error(f"no bar {', '.join(unknown)}; there are {', '.join(BARS)}")
    if os.geteuid() != 0:
        parser.error("needs root: sudo make bench")
    out = given.out or (RESULTS if names == list(BARS) and not given.quick else None)
    before, begun, about = Leftovers.find(), datetime.now(UTC), machine()
    versus = "none"
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-bench-")))
        image = build_image(scratch, IMAGE)
        daemon = None
        if not given.no_peer:
            try:
                daemon = stack.enter_context(peer.unpacked())
                versus = f"{daemon.name} of Debian's packages, on playground hosts like Shoal's"
            except Unavailable as error:
                versus = f"none ({error})"
                print(f"no peer: {error}", flush=True)
        bars = [measure(name, Options(given.quick, daemon, image)) for name in names]
    bars.append(leftovers(before))
    print(bars[-1].markdown())
    if out:
        extra = " ".join(sys.argv[1:])
        command = f"python -m bench.run {extra}" if extra else "sudo make bench"
        out.write_text(document(bars, command, about, begun, versus))
        print(f"written to {out}")
    return 0 if all(met for bar in bars for met, _ in bar.verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
