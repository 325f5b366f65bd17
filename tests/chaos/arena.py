"""A cluster of playground hosts whose data roots lie on small disks, and whose state is what was synced."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.cluster import host_processes, load
from shoal.playground.boxes import base_environment, default_daemon
from shoal.playground.formation import wait_ready
from shoal.playground.layout import Settings
from shoal.playground.playground import Playground
from tests.chaos import power

DISK_BYTES = 192 << 20
"""Of a data root's file system, which also holds the copies of what was synced."""
_FILLER = ".filler"
_SMALL_LOG = Path(__file__).with_name("small_log")
_MARKS = {"manager": " -m manager ", "shoald": "/shoald "}


class Arena:
    """A running cluster, and what can be done to it."""

    def __init__(self, place: Playground, hosts: int) -> None:
        self.place = place
        self.hosts = [f"host{number}" for number in range(1, hosts + 1)]

    def socket(self, host: str) -> Path:
        """Where its Engine API listens."""
        return self.place.host(host).socket

    def state(self, host: str) -> Path:
        """Its swarm state directory."""
        return self.place.host(host).data / "swarm"

    def process(self, host: str, what: str) -> int | None:
        """The pid, on this machine, of the host's `manager` or `shoald`; None when it does not run."""
        try:
            found = host_processes(self.place, host)
        except (KeyError, FileNotFoundError):
            return None  # the host is off
        return next((pid for pid, line in found.items() if _MARKS[what] in f" {line} "), None)

    def signal(self, host: str, what: str, number: int) -> bool:
        """Send a signal; False when there is no such process."""
        pid = self.process(host, what)
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def lose_power(self, *hosts: str) -> None:
        """All at the same moment. What their state directories held and was not synced is gone."""
        self.place.kill(*hosts)
        for host in hosts:
            power.lose_power(self.state(host))

    def start(self, *hosts: str) -> None:
        """Give them power again."""
        self.place.start(*hosts)

    def fill_disk(self, host: str) -> None:
        """Leave no byte free on the disk with its state."""
        path = self.place.host(host).data / _FILLER
        free = os.statvfs(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            with contextlib.suppress(OSError):  # others write meanwhile
                os.posix_fallocate(descriptor, 0, max(free.f_bavail * free.f_frsize, 1))
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, bytes(free.f_frsize))
        finally:
            os.close(descriptor)

    def free_disk(self, host: str) -> None:
        """Undo `fill_disk`."""
        (self.place.host(host).data / _FILLER).unlink(missing_ok=True)

    def wait_ready(self) -> None:
        """Wait until every manager sees all nodes ready and all managers reachable."""
        for host in self.hosts:
            wait_ready(self.place.engine(host), len(self.hosts), len(self.hosts))

    def load(self, image: Path) -> None:
        """`docker load` on every host."""
        for host in self.hosts:
            load(self.place.engine(host), image)

    def keep_logs(self, directory: Path) -> None:
        """Copy the daemons' logs."""
        for host in self.place.hosts():
            if host.log.exists():
                shutil.copyfile(host.log, directory / f"{host.name}.log")


@contextmanager
def arena(hosts: int = 3, log_level: str = "info") -> Iterator[Arena]:
    """A new cluster, all of it managers; nothing of it is left afterwards, whatever happens."""
    parent = Path(tempfile.mkdtemp(prefix="shoal-"))
    parent.chmod(0o711)  # managers, which are not root, find the copies by path
    place = Playground(parent / "p")
    homes = place.layout.hosts(hosts)
    mounted: list[Path] = []
    try:
        shim = power.environment(power.build(parent), [host.data / "swarm" for host in homes])
        shim["PYTHONPATH"] = f"{_SMALL_LOG}:{base_environment()['PYTHONPATH']}"
        daemon = ("env", *(f"{name}={value}" for name, value in shim.items()), *default_daemon())
        settings = Settings(hosts=hosts, managers=hosts, daemon=daemon, log_level=log_level)
        place.layout.directory.mkdir()
        place.layout.settings.write_bytes(msgspec.json.encode(settings))  # so that `up` takes the folders up
        for host in homes:
            host.data.mkdir(parents=True)
            options = f"size={DISK_BYTES},mode=0755"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "shoal-chaos", str(host.data)], check=True)
            mounted.append(host.data)
            power.identity(host.data)  # raises, and early, where this can't work
        place.up(settings)
        yield Arena(place, hosts)
    finally:
        place.down(keep=True)
        for data in mounted:
            subprocess.run(["umount", "--lazy", str(data)], check=False)
        place.down()
        shutil.rmtree(parent)
