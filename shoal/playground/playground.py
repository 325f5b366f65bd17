"""The playground as an object: what the command line, the demo and the tests drive."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cluster.errors import Conflict, InvalidArgument, NotFound, Unavailable
from shoal.cli.client import Engine
from shoal.playground import cgroups, formation, processes, underlay
from shoal.playground.boxes import Boxes, base_environment
from shoal.playground.layout import CLIENT, UNDERLAY, Host, Layout, Settings

_LOCK_SECONDS = 120.0


@dataclass(frozen=True)
class HostState:
    """One host as `ls` shows it."""

    host: Host
    state: str
    """`running`, `no daemon` (the host runs, its daemon doesn't answer) or `off`."""
    pid: int
    """Process 1 of the host as the machine sees it; 0 when off."""
    cut_from: tuple[str, ...]


class Playground:
    """The playground in one folder.

    Every method may be called from any process: what exists is read from the kernel and the folder each time.
    """

    def __init__(self, directory: Path, say: Callable[[str], None] = lambda sentence: None) -> None:
        """Args: directory: as `--dir`. say: told each step of the longer operations.

        Raises:
            InvalidArgument: the folder can't hold a playground.
        """
        self.layout = Layout(directory)
        self._say = say
        self._boxes = Boxes(self.layout)

    # -- what there is -----------------------------------------------------------------------------

    def settings(self) -> Settings:
        """What the playground was made with.

        Raises:
            NotFound: there is no playground here.
        """
        try:
            return msgspec.json.decode(self.layout.settings.read_bytes(), type=Settings)
        except FileNotFoundError:
            raise NotFound(
                f"no playground in {self.layout.directory}: start one with `shoal playground up`, "
                "or name its folder with --dir"
            ) from None

    def hosts(self) -> list[Host]:
        """All hosts, running or not."""
        return self.layout.hosts(self.settings().hosts)

    def host(self, name: str) -> Host:
        """The host of that name.

        Raises:
            NotFound: the playground has no such host.
        """
        for host in self.hosts():
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts())
        raise NotFound(f"no host {name!r} in this playground; it has {names}")

    def engine(self, name: str) -> Engine:
        """A client of that host's Engine API."""
        return Engine(self.host(name).docker_host)

    def states(self) -> list[HostState]:
        """Every host's state."""
        running = processes.inits(self.layout.directory)
        cuts = underlay.load_cuts(self.layout.cuts)
        found = []
        for host in self.hosts():
            pid = running.get(host.name, 0)
            answers = bool(pid) and Engine(host.docker_host).ping(timeout=2.0)
            state = "running" if answers else "no daemon" if pid else "off"
            cut_from = sorted(
                {c.receiver for c in cuts if c.sender == host.name}
                | {c.sender for c in cuts if c.receiver == host.name}
            )
            found.append(HostState(host, state, pid, tuple(cut_from)))
        return found

    # -- whole playgrounds -------------------------------------------------------------------------

    def up(self, settings: Settings) -> None:
        """Start the hosts and, unless `managers` is 0, make them a cluster.

        A folder kept by `down(keep=True)`, or left by a machine that lost power, is taken up again with its
        state.

        Raises:
            Conflict: it is already up.
            ShoalError: something could not be made. What was made stays, for a look; `down` removes it.
        """
        if os.geteuid() != 0:
            raise InvalidArgument("a playground makes namespaces and needs root: run it with sudo")
        self.layout.directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if running := processes.inits(self.layout.directory):
                count = len(running.keys() - {UNDERLAY, CLIENT})
                raise Conflict(
                    f"the playground in {self.layout.directory} is already up ({count} hosts run); look at "
                    "it with "
                    "`shoal playground ls`, take it down with `shoal playground down`, or choose another "
                    "--dir"
                )
            if not self.layout.settings.exists() and (foreign := next(self.layout.owned(), None)):
                raise InvalidArgument(
                    f"{foreign} exists and is no playground's: choose an empty folder with --dir"
                )
            self._remove_from_kernel()  # what an `up` that failed has left would be in the way
            self._write(self.layout.settings, msgspec.json.encode(settings))
            hosts = self.layout.hosts(settings.hosts)
            self._say(f"starting {settings.hosts} hosts in {self.layout.directory}")
            self._boxes.make([UNDERLAY, CLIENT, *(host.name for host in hosts)], settings)
            pids = processes.inits(self.layout.directory)
            underlay.prepare_router(pids[UNDERLAY])
            underlay.ip_batch(pids[UNDERLAY], underlay.bridge_commands())
            self._boxes.plug([None, *hosts], pids)
            underlay.apply_cuts(pids[UNDERLAY], underlay.load_cuts(self.layout.cuts))
            self._boxes.start_daemons(hosts, pids)
            if settings.managers:
                formation.form(hosts, settings.managers, self._say)

    def down(self, *, keep: bool = False) -> int:
        """Remove everything that the playground has put into the kernel, and its files.

        Works on any remains, also of an `up` that was interrupted, and also when the folder is gone.

        Args:
            keep: leave the hosts' state, so that `up` can take it up again.

        Returns:
            How many hosts (the client and the underlay included) were running.
        """
        if not self.layout.directory.is_dir():
            return self._remove_from_kernel()
        with self._locked():
            ended = self._remove_from_kernel()
            if keep:
                return ended
            if self.layout.settings.exists():  # else the folder is not, or no longer, a playground's
                for path in self.layout.owned():
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                self.layout.settings.unlink()  # last, so that an interrupted `down` can be repeated
            self.layout.lock.unlink()
        if not any(self.layout.directory.iterdir()):
            self.layout.directory.rmdir()
        return ended

    def _remove_from_kernel(self) -> int:
        ended = processes.kill(self.layout.directory)
        cgroups.remove(self.layout.cgroup)
        return ended

    # -- one host ----------------------------------------------------------------------------------

    def kill(self, *names: str) -> None:
        """Take the power from hosts: no packet leaves them any more, then every process of them dies at once.

        Raises:
            Conflict: one is off already.
        """
        for name in names:
            self.host(name)
        with self._locked():
            pids = {name: self._running(name)[name] for name in (UNDERLAY, *names)}
            underlay.ip_batch(pids[UNDERLAY], [f"link set {name} down" for name in names])
            for name in names:
                with contextlib.suppress(ProcessLookupError):  # the next step waits until all are gone
                    os.kill(pids[name], signal.SIGKILL)
            for name in names:
                processes.kill(self.layout.directory, name)
                underlay.ip_batch(pids[UNDERLAY], [underlay.unplug_command(name)], force=True)
                cgroups.remove(f"{self.layout.cgroup}/{name}")

    def start(self, *names: str) -> None:
        """Give hosts their power back, all at once: they have their disks, and nothing of their memory.

        Raises:
            Conflict: one is running.
            Unavailable: the playground itself is down.
        """
        hosts = [self.host(name) for name in names]
        with self._locked():
            pids = processes.inits(self.layout.directory)
            for name in names:
                if name in pids:
                    raise Conflict(f"{name} is running; `shoal playground kill {name}` takes its power away")
            if UNDERLAY not in pids:
                raise Unavailable("the playground is down: start it with `shoal playground up`")
            for name in names:
                cgroups.remove(f"{self.layout.cgroup}/{name}")
            self._boxes.make(names, self.settings())
            pids = processes.inits(self.layout.directory)
            for name in names:
                underlay.ip_batch(pids[UNDERLAY], [underlay.unplug_command(name)], force=True)
            self._boxes.plug(hosts, pids)
            self._boxes.start_daemons(hosts, pids)

    def restart_daemon(self, name: str) -> None:
        """Stop a host's daemon in an orderly way, if it runs, and start it again; its containers go on.

        Raises:
            Conflict: the host is off.
        """
        host = self.host(name)
        with self._locked():
            self._boxes.start_daemons([host], self._running(name))

    def stop_daemon(self, name: str) -> None:
        """Stop a host's daemon in an orderly way; its containers go on.

        Raises:
            Conflict: the host is off.
        """
        host = self.host(name)
        with self._locked():
            self._boxes.stop_daemon(host, self._running(name)[name])

    def command(self, box: str, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` in a host or in the client.

        Raises:
            Conflict: it is off.
        """
        if box != CLIENT:
            self.host(box)
        pid = self._running(box)[box]
        spaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        # Die with nsenter, which does not pass signals on to the process that it forked into the PID
        # namespace.
        return ["nsenter", f"--target={pid}", *spaces, "--", "setpriv", "--pdeathsig", "TERM", "--", *command]

    def environment(self, box: str) -> dict[str, str]:
        """The environment for a command in a host or in the client."""
        return base_environment() | ({"DOCKER_HOST": self.host(box).docker_host} if box != CLIENT else {})

    def join_cgroup(self, box: str) -> None:
        """Move the calling process into a host's cgroup: what it starts there counts as the host's."""
        cgroups.join(f"{self.layout.cgroup}/{box}", leaf=True)

    def popen(self, box: str, command: Sequence[str], **options: object) -> "subprocess.Popen[str]":
        """Start a command in a host or in the client; options as subprocess.Popen's, in text mode."""
        joiner = [sys.executable, "-m", "shoal.playground.joiner", f"{self.layout.cgroup}/{box}"]
        arguments: Any = {"env": self.environment(box)} | options
        return subprocess.Popen([*joiner, *self.command(box, command)], text=True, **arguments)

    def run(
        self, box: str, command: Sequence[str], timeout: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a host or in the client to its end; its exit status raises nothing."""
        with self.popen(
            box, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    # -- partitions --------------------------------------------------------------------------------

    def partition(self, name: str, others: Sequence[str] = (), *, one_way: bool = False) -> tuple[str, ...]:
        """Lose every packet between a host and others; no end is told.

        Args:
            others: hosts, or `client`; all of them when empty.
            one_way: lose only what `name` sends.

        Returns:
            The names that it is now cut from.
        """
        self.host(name)
        everyone = [host.name for host in self.hosts()] + [CLIENT]
        for other in others:
            if other not in everyone or other == name:
                raise NotFound(f"can't cut {name} from {other!r}: choose from {', '.join(everyone)}")
        cut_from = [other for other in (others or everyone) if other != name]
        with self._locked():
            cuts = underlay.load_cuts(self.layout.cuts) | underlay.make_cuts(name, cut_from, one_way=one_way)
            self._apply(cuts)
        return tuple(cut_from)

    def heal(self) -> None:
        """End all partitions."""
        self.settings()
        with self._locked():
            self._apply(set())

    def _apply(self, cuts: set[underlay.Cut]) -> None:
        pids = processes.inits(self.layout.directory)
        if UNDERLAY not in pids:
            raise Unavailable("the playground is down: start it with `shoal playground up`")
        underlay.apply_cuts(pids[UNDERLAY], cuts)
        underlay.save_cuts(self.layout.cuts, cuts)

    # -- how ---------------------------------------------------------------------------------------

    def _running(self, name: str) -> dict[str, int]:
        pids = processes.inits(self.layout.directory)
        if name not in pids:
            raise Conflict(f"{name} is off; start it with `shoal playground start {name}`")
        return pids

    def _write(self, path: Path, content: bytes) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time changes a playground.

        The lock is also held by a child between fork and exec, so that whoever gets it sees every process by
        name.
        """
        with self.layout.lock.open("w") as file:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Unavailable(
                            f"another command is at work on {self.layout.directory}; wait for it or end it"
                        ) from None
                    time.sleep(0.05)
            yield
