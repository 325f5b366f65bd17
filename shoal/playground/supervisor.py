"""Process 1 of a playground host: makes the host, runs its daemon, reaps orphans, and outlives the daemon.

Started as `python -m shoal.playground.supervisor DIR NAME` with its `Order` on standard input. DIR and NAME
in the command line are how later commands find it: nothing need have been recorded. It returns once the host
is made.

Signals: SIGHUP stops the daemon if it runs (SIGTERM, then SIGKILL) and starts it; SIGUSR1 only stops it.
Containers are children of their monitors and go on. The daemon's state stands in DIR/NAME/daemon.status.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from shoal.playground import cgroups, namespaces

STOP_SECONDS = 20.0
"""How long a daemon may take to end after SIGTERM before it is killed."""

_HANDLED = {signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What host to make."""

    cgroup: str
    etc: dict[str, str]
    daemon: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    log: str = ""
    status: str = ""


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's state, as the supervisor last wrote it."""

    starts: int
    """How often it has been started since the host came up."""
    pid: int = 0
    """Its process in the host's PID namespace; 0 when it does not run."""
    exit: str = ""
    """How it ended, when it did: `exit status 1`, `signal 9`."""


class Daemon:
    """The one daemon that a supervisor looks after."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._pid = 0
        self._starts = 0

    def start(self) -> None:
        """Start the daemon, detached from every terminal, its output appended to the log."""
        if not self._order.daemon:
            return
        self._starts += 1
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            self._pid = os.posix_spawnp(
                self._order.daemon[0],
                self._order.daemon,
                self._order.environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, self._order.log, append, 0o640),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=_HANDLED,
            )
        except OSError as error:
            self._write(exit=f"{self._order.daemon[0]}: {error.strerror}")
            return
        self._write()

    def stop(self) -> None:
        """End the daemon and wait for its end."""
        if not self._pid:
            return
        os.kill(self._pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self._pid and (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            self.reap()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        while self._pid:
            signal.sigwait({signal.SIGCHLD})
            self.reap()

    def reap(self) -> None:
        """Collect every child that has ended; orphans of the whole host become children of process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._pid = 0
                code = os.waitstatus_to_exitcode(status)
                self._write(exit=f"exit status {code}" if code >= 0 else f"signal {-code}")

    def _write(self, exit: str = "") -> None:
        path = Path(self._order.status)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(DaemonStatus(starts=self._starts, pid=self._pid, exit=exit)))
        fresh.replace(path)


def supervise(order: Order) -> NoReturn:
    """Serve signals until the host loses power. Never returns."""
    daemon = Daemon(order)
    while True:
        received = signal.sigwait(_HANDLED)
        if received in (signal.SIGHUP, signal.SIGUSR1):
            daemon.stop()
        if received == signal.SIGHUP:
            daemon.start()
        daemon.reap()


def _become_host(order: Order, name: str) -> None:
    namespaces.mount_host_filesystem(order.etc)
    namespaces.set_hostname(name)
    namespaces.loopback_up()


def _let_go_of_caller() -> None:
    """Detach from the terminal and pipes of the command that started us, so that it can end."""
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _make(order: Order, name: str) -> str:
    """Make the host in a child, its process 1. Returns what went wrong, or nothing once it stands."""
    cgroups.create(order.cgroup)
    cgroups.join(order.cgroup, leaf=False)
    namespaces.unshare()
    cgroups.enter_leaf_and_delegate(order.cgroup)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        try:
            _become_host(order, name)
        except OSError as error:
            os.write(writing, str(error).encode())
            os._exit(1)
        _let_go_of_caller()
        os.write(writing, b"ready")
        os.close(writing)
        supervise(order)
    os.close(writing)
    answer = b"".join(iter(lambda: os.read(reading, 4096), b"")).decode()
    return "" if answer == "ready" else answer or "its process 1 died"


def main(arguments: Sequence[str]) -> int:
    """Make the host, leave its process 1 behind, and return 0 once it stands."""
    _, name = arguments
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        problem = _make(order, name)
    except OSError as error:
        problem = str(error)
    if problem:
        sys.stderr.write(f"{name} could not be made: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
