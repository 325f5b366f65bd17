"""Programs from the distribution's packages, unpacked into a folder: nothing is installed or started."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import Unavailable


def download(names: Sequence[str], cache: Path) -> list[Path]:
    """The packages' files, from `cache` where they are already there. Raises Unavailable.

    "a|b" is whichever of the two this distribution has, as packages get other names over the releases.
    """
    cache.mkdir(parents=True, exist_ok=True)
    return [_first(name.split("|"), cache) for name in names]


def _first(names: Sequence[str], cache: Path) -> Path:
    problem = ""
    for name in names:
        if here := sorted(cache.glob(f"{name}_*.deb")):
            return here[-1]
    for name in names:
        command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name]
        run = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
        here = sorted(cache.glob(f"{name}_*.deb"))
        if run.returncode == 0 and here:
            return here[-1]
        problem = run.stderr.strip() or "apt-get gave no file"
    raise Unavailable(
        f"can't download the package {' or '.join(names)}: {problem}. Run `apt-get update` and try again"
    )


def unpack(packages: Sequence[Path], into: Path) -> None:
    """Unpack packages over each other, as they lie on a machine with a merged /usr."""
    into.mkdir(parents=True, exist_ok=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(package), str(into)], check=True)
    for name in ("lib", "lib64"):
        if not (into / name).exists() and (into / "usr" / name).exists():
            os.symlink(f"usr/{name}", into / name)
