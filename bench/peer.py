"""The peer: Debian's dockerd, from its packages unpacked into a folder. Nothing is installed or started.

A playground runs it in place of shoald, because it takes the same flags: both engines get the same
namespaces, cgroups, network and disk, and are gone in the same way.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Unavailable
from shoal.demo.packages import download, unpack

PACKAGES = ("docker.io", "containerd", "runc")
CACHE = Path("/var/cache/shoal/packages")


@dataclass(frozen=True)
class Daemon:
    """An engine that a playground can run."""

    name: str
    command: tuple[str, ...]
    process: str
    """What its manager's command line holds: that of the process that a crash of the leader ends."""


@contextmanager
def unpacked() -> Iterator[Daemon]:
    """dockerd, ready to be run by a playground. Raises Unavailable when it can't be had here."""
    if not shutil.which("iptables"):
        raise Unavailable("dockerd needs iptables: install the package iptables to compare with it")
    folder = Path(tempfile.mkdtemp(prefix="shoal-bench-peer-"))
    try:
        unpack(download(PACKAGES, CACHE), folder)
        path = os.pathsep.join((f"{folder}/usr/sbin", f"{folder}/usr/bin", "/usr/sbin:/usr/bin:/sbin:/bin"))
        try:
            # "Docker version 20.10.24+dfsg1, build 297e128"
            answer = subprocess.check_output([folder / "usr/sbin/dockerd", "--version"], text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"dockerd does not run here: {error}") from error
        version = answer.split()[2].rstrip(",").partition("+")[0]
        # Images are local: without this, dockerd asks the hub for each before it starts tasks.
        settings = ("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1", f"PATH={path}")
        yield Daemon(f"dockerd {version}", ("/usr/bin/env", *settings, "dockerd"), "dockerd --data-root")
    finally:
        shutil.rmtree(folder)
