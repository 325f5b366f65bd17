"""A directory that loses what was not synced, and processes that write to it."""

import subprocess
import sys
from pathlib import Path

from tests.chaos import power


class Disk:
    """Scripts run in processes of their own with the library; they find the directory in sys.argv[1]."""

    def __init__(self, root: Path, library: Path, helpers: str) -> None:
        self.root = root
        self._helpers = helpers
        self._environment = power.environment(library, [root]) | {"PYTHONPATH": str(Path.cwd())}

    def run(self, script: str) -> None:
        """Run a script to its end; it must not fail."""
        command = [sys.executable, "-c", self._helpers + script, str(self.root)]
        subprocess.run(command, env=self._environment, check=True)

    def after_power_loss(self) -> dict[str, bytes]:
        """The files that are left, by path, and their content."""
        power.lose_power(self.root)
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and power.SHADOW not in path.parts
        }
