"""Making a playground's hosts, connecting them, and running their daemons."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

import shoal
from cluster.errors import ShoalError
from shoal.playground import formation, processes, underlay
from shoal.playground.layout import (
    CLIENT,
    CLIENT_ADDRESS,
    UNDERLAY,
    Host,
    Layout,
    Settings,
    daemon_command,
    hosts_file,
)
from shoal.playground.supervisor import STOP_SECONDS, DaemonStatus, Order

ANSWER_SECONDS = 60.0
"""How long a daemon may take to answer after its start."""

_PACKAGE_ROOT = Path(shoal.__file__).parent.parent
_RESOLV_CONF = (
    "# The playground has no way out to the Internet; names are in /etc/hosts.\n"
    "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n"
)


def default_daemon() -> tuple[str, ...]:
    """The `shoald` of this installation."""
    script = Path(sys.executable).with_name("shoald")
    if script.exists():
        return (str(script),)
    return (sys.executable, "-c", "import sys; from shoal.daemon.main import main; sys.exit(main())")


def base_environment() -> dict[str, str]:
    """What processes in a host see of our environment; they must find the same `shoal` as we."""
    kept = {
        name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ", "TERM", "COLUMNS") if name in os.environ
    }
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    inherited = os.environ.get("PYTHONPATH")
    return kept | {
        "HOME": "/root",
        "PATH": f"{Path(sys.executable).parent}:{system}",
        "PYTHONPATH": os.pathsep.join([str(_PACKAGE_ROOT), *([inherited] if inherited else [])]),
    }


def _started_since(starts: int, status: DaemonStatus) -> bool:
    return status.starts > starts


class Boxes:
    """The namespaces of one playground: its hosts, its client and its underlay.

    Callers hold the playground's lock.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def make(self, names: Sequence[str], settings: Settings) -> None:
        """Make hosts (and the other namespaces), all at once.

        Raises:
            ShoalError: some could not be made; says which and why.
        """
        hosts = self._layout.hosts(settings.hosts)
        starting = []
        for name in names:
            home = self._layout.home(name)
            home.mkdir(exist_ok=True)
            daemon: tuple[str, ...] = ()
            if name not in (UNDERLAY, CLIENT):
                host = self._layout.host(name)
                daemon = tuple(daemon_command(settings, host))
                (home / "daemon.status").unlink(missing_ok=True)
            etc = {"hostname": f"{name}\n", "hosts": hosts_file(name, hosts), "resolv.conf": _RESOLV_CONF}
            order = Order(
                cgroup=f"{self._layout.cgroup}/{name}",
                etc=etc,
                daemon=daemon,
                environment=base_environment(),
                log=str(home / "shoald.log"),
                status=str(home / "daemon.status"),
            )
            process = subprocess.Popen(
                [sys.executable, "-m", processes.MODULE, str(self._layout.directory), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=base_environment(),
                start_new_session=True,  # Ctrl-C ends this command, not the hosts
            )
            starting.append((process, msgspec.json.encode(order)))
        problems = []
        for process, order_bytes in starting:
            _, errors = process.communicate(order_bytes)
            if process.returncode != 0:
                problems.append(errors.decode(errors="replace").strip())
        if problems:
            raise ShoalError("; ".join(problems))

    def plug(self, hosts: Sequence[Host | None], pids: dict[str, int]) -> None:
        """Connect hosts (None is the client) with the underlay."""
        commands = []
        for host in hosts:
            name, address = (host.name, host.address) if host else (CLIENT, CLIENT_ADDRESS)
            commands += underlay.plug_commands(name, address, pids[name])
        underlay.ip_batch(pids[UNDERLAY], commands)
        for host in hosts:
            underlay.ip_batch(pids[host.name if host else CLIENT], underlay.host_commands(host))

    def start_daemons(self, hosts: Sequence[Host], pids: dict[str, int]) -> None:
        """(Re)start the daemons and wait until they answer.

        Raises:
            ShoalError: a daemon ended or does not answer in time.
        """
        before = {host.name: self.daemon_status(host).starts for host in hosts}
        for host in hosts:
            os.kill(pids[host.name], signal.SIGHUP)
        for host in hosts:
            self._await_status(host, partial(_started_since, before[host.name]))
        formation.wait_answering(hosts, ANSWER_SECONDS, self._daemon_end)

    def stop_daemon(self, host: Host, pid: int) -> None:
        """Stop the daemon of the host whose process 1 is `pid`, if it runs, in an orderly way."""
        if self.daemon_status(host).pid:
            os.kill(pid, signal.SIGUSR1)
            self._await_status(host, lambda status: status.pid == 0)

    def daemon_status(self, host: Host) -> DaemonStatus:
        """What the host's supervisor last said of its daemon."""
        try:
            return msgspec.json.decode((host.home / "daemon.status").read_bytes(), type=DaemonStatus)
        except FileNotFoundError:
            return DaemonStatus(starts=0)

    def _daemon_end(self, host: Host) -> str | None:
        return self.daemon_status(host).exit or None

    def _await_status(self, host: Host, wanted: Callable[[DaemonStatus], bool]) -> None:
        deadline = time.monotonic() + STOP_SECONDS + 5.0
        while not wanted(self.daemon_status(host)):
            if time.monotonic() > deadline:
                raise ShoalError(f"the supervisor of {host.name} does not react; see {host.log}")
            time.sleep(0.01)
