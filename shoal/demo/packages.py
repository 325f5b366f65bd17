"""Programs from the distribution's packages, unpacked into a folder: nothing is installed or started."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import Unavailable


def download(names: Sequence[str], cache: Path) -> list[Path]:
    """The packages' files, from `cache` where they are already there. Raises Unavailable."""
    cache.mkdir(parents=True, exist_ok=True)
    found = []
    for name in names:
        here = sorted(cache.glob(f"{name}_*.deb"))
        if not here:
            run = subprocess.run(
                ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name],
                cwd=cache,
                capture_output=True,
                text=True,
                check=False,
            )
            here = sorted(cache.glob(f"{name}_*.deb"))
            if run.returncode or not here:
                raise Unavailable(
                    f"can't download the package {name}: {run.stderr.strip() or 'apt-get gave no file'}. "
                    "Run `apt-get update` and try again"
                )
        found.append(here[-1])
    return found


def unpack(packages: Sequence[Path], into: Path) -> None:
    """Unpack packages over each other, as they lie on a machine with a merged /usr."""
    into.mkdir(parents=True, exist_ok=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(package), str(into)], check=True)
    for name in ("lib", "lib64"):
        if not (into / name).exists() and (into / "usr" / name).exists():
            os.symlink(f"usr/{name}", into / name)
