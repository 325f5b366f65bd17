"""What a playground consists of: names, addresses, paths. Decided before anything is created.

Addresses come from the documentation ranges (RFC 5737). Each playground has an underlay of its own in a
network namespace, so that several playgrounds may use the same ones. `client` stands behind a router, outside
the cluster's subnet, as a real user would.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster.errors import InvalidArgument, NotFound

USUAL_DIRECTORY = Path("/var/lib/shoal-playground")
MAX_HOSTS = 200
UNDERLAY = "underlay"
CLIENT = "client"
REGISTRY_NAME = "registry"
"""The client's other name in every host's /etc/hosts: a registry started there is `registry:5000`."""

CLUSTER_SUBNET_LENGTH = 24
CLUSTER_GATEWAY = "192.0.2.1"
CLIENT_ADDRESS = "203.0.113.10"
CLIENT_GATEWAY = "203.0.113.1"
MANAGER_PORT = 2377

_UNIX_PATH_BYTES = 107  # sun_path holds 108 bytes with the terminating zero (unix(7))
_HIDDEN_IN_HOSTS = (Path("/run"), Path("/var/run"), Path("/proc"), Path("/sys"), Path("/dev"), Path("/etc"))
_HOST_NAME = re.compile(r"host([1-9][0-9]*)")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` was asked for; written to disk before anything is created."""

    hosts: int
    managers: int
    daemon: tuple[str, ...]
    """The daemon's program and its first arguments; the playground appends dockerd's flags."""
    daemon_args: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = (f"{REGISTRY_NAME}:5000",)
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Refuse what can't be built.

        Raises:
            InvalidArgument: the counts are out of range, or more managers than hosts are asked for.
        """
        if not 1 <= self.hosts <= MAX_HOSTS:
            raise InvalidArgument(f"--hosts {self.hosts}: choose between 1 and {MAX_HOSTS}")
        if self.managers < 0:
            raise InvalidArgument(f"--managers {self.managers}: choose 0 (plain engines) or more")
        if self.managers > self.hosts:
            raise InvalidArgument(
                f"--managers {self.managers} is more than --hosts {self.hosts}: add hosts or ask for fewer "
                "managers"
            )


@dataclass(frozen=True)
class Host:
    """One host of a playground."""

    name: str
    address: str
    home: Path

    @property
    def socket(self) -> Path:
        """Where its Engine API listens."""
        return self.home / "shoal.sock"

    @property
    def data(self) -> Path:
        """Its daemon's `--data-root`."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """Its daemon's standard output and error."""
        return self.home / "shoald.log"

    @property
    def docker_host(self) -> str:
        """The value for DOCKER_HOST."""
        return f"unix://{self.socket}"


class Layout:
    """The paths and names of the playground in one directory."""

    def __init__(self, directory: Path) -> None:
        """Args: directory: the playground's folder; need not exist.

        Raises:
            InvalidArgument: the API sockets would not fit a unix socket address, or hosts could not see the
                folder.
        """
        self.directory = Path(os.path.realpath(directory))
        socket = self.host(f"host{MAX_HOSTS}").socket
        excess = len(os.fsencode(socket)) - _UNIX_PATH_BYTES
        if excess > 0:
            raise InvalidArgument(
                f"--dir {self.directory} is {excess} bytes too long: the API socket {socket} must fit in "
                f"{_UNIX_PATH_BYTES} bytes; choose a shorter folder"
            )
        for hidden in _HIDDEN_IN_HOSTS:
            if self.directory.is_relative_to(hidden):
                raise InvalidArgument(
                    f"--dir {self.directory} lies under {hidden}, which every host has of its own; "
                    "choose a folder elsewhere, such as /var/lib/shoal-playground"
                )

    @property
    def settings(self) -> Path:
        """The file that says what `up` was asked for; its presence means that there is a playground."""
        return self.directory / "playground.json"

    @property
    def lock(self) -> Path:
        """Held while a command changes the playground."""
        return self.directory / ".playground.lock"

    @property
    def cuts(self) -> Path:
        """The partitions in force."""
        return self.directory / "partitions.json"

    @property
    def cgroup(self) -> str:
        """The name of the playground's cgroup in every hierarchy; found again from the directory alone."""
        return f"shoal-playground-{hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]}"

    def home(self, box: str) -> Path:
        """The folder of a host, of the client or of the underlay."""
        return self.directory / box

    def host(self, name: str) -> Host:
        """The host of that name.

        Raises:
            NotFound: the name is not host1, host2, ….
        """
        match = _HOST_NAME.fullmatch(name)
        if match is None or int(match[1]) > MAX_HOSTS:
            raise NotFound(f"no host {name!r}: hosts are named host1, host2, …")
        return Host(name=name, address=f"192.0.2.{10 + int(match[1])}", home=self.home(name))

    def hosts(self, count: int) -> list[Host]:
        """The first `count` hosts."""
        return [self.host(f"host{number}") for number in range(1, count + 1)]

    def owned(self) -> Iterator[Path]:
        """Every path in the directory with a name that playgrounds use, but for its settings and lock."""
        for path in (self.cuts, self.home(UNDERLAY), self.home(CLIENT)):
            if path.exists():
                yield path
        if self.directory.is_dir():
            yield from sorted(path for path in self.directory.iterdir() if _HOST_NAME.fullmatch(path.name))


def default_directory() -> Path:
    """Where a playground lives unless `--dir` says otherwise."""
    return Path(os.environ.get("SHOAL_PLAYGROUND_DIR") or USUAL_DIRECTORY)


def hosts_file(name: str, hosts: list[Host]) -> str:
    """The /etc/hosts of the host or client called `name`."""
    lines = [
        "127.0.0.1 localhost",
        f"127.0.1.1 {name}" if name == UNDERLAY else "::1 localhost ip6-localhost",
    ]
    lines += [f"{host.address} {host.name}" for host in hosts]
    lines.append(f"{CLIENT_ADDRESS} {CLIENT} {REGISTRY_NAME}")
    return "\n".join(lines) + "\n"


def daemon_command(settings: Settings, host: Host) -> list[str]:
    """The command line of a host's daemon."""
    command = [
        *settings.daemon,
        f"--data-root={host.data}",
        "--exec-root=/run/shoal",
        f"--host={host.docker_host}",
        "--pidfile=/run/shoald.pid",
        f"--log-level={settings.log_level}",
    ]
    command += [f"--insecure-registry={registry}" for registry in settings.insecure_registries]
    return [*command, *settings.daemon_args]
