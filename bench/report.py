"""What a benchmark found, and how bench/RESULTS.md shows it."""

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Bar:
    """One bar: a goal, and the figures that tell whether it is met."""

    title: str
    goal: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    verdicts: list[tuple[bool, str]] = field(default_factory=list)
    """Each part of the goal: whether it is met, and the figure that says so."""
    notes: list[str] = field(default_factory=list)

    def check(self, met: bool, figure: str) -> None:
        """Record one part of the goal."""
        self.verdicts.append((met, figure))

    def markdown(self) -> str:
        """The bar as a section."""
        lines = [f"## {self.title}", "", f"Goal: {self.goal}", ""]
        lines += [f"- **{'met' if met else 'MISSED'}**: {figure}" for met, figure in self.verdicts]
        if self.rows:
            lines += ["", _row(self.header), _row(["---"] * len(self.header)), *map(_row, self.rows)]
        if self.notes:
            lines += ["", *(f"{note}\n" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def seconds(values: Sequence[float]) -> str:
    """`median (least-greatest)`."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def listed(values: Sequence[float]) -> str:
    """All values, ascending."""
    return ", ".join(f"{value:.2f}" for value in sorted(values))


def machine() -> str:
    """The machine and the programs, in a line."""

    def first_line(*command: str) -> str:
        try:
            return subprocess.check_output(command, text=True).splitlines()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            return f"{command[0]}: unknown"

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {first_line('crun', '--version')}, "
        f"{first_line('conmon', '--version')}, load average at the start {os.getloadavg()[0]:.1f}"
    )
