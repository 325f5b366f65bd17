"""The real runtime: OCI bundles on overlayfs, conmon as monitor, crun (or runc).

conmon outlives the daemon: it holds the container's output and writes its exit code to a file, so that a
restarted daemon misses nothing.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from cluster.errors import Conflict, InvalidArgument
from cluster.seams import Clock
from worker.logs import journald
from worker.logs.attributes import tag
from worker.logs.format import LogEntry
from worker.logs.reader import LogQuery, read_log
from worker.logs.rotation import LogRotator, RotationPolicy, rotation_policy
from worker.runtime import directory, launch, mounting
from worker.runtime.cgroups import Cgroups, detect
from worker.runtime.directory import Layout
from worker.runtime.ends import UNKNOWN_EXIT_CODE, Ends
from worker.runtime.exec_process import exec_process
from worker.runtime.execute import Executor
from worker.runtime.exits import read_exit_code, watch_exits
from worker.runtime.inotify import Inotify
from worker.runtime.launch import ContainerStartFailed, Launched, Launcher
from worker.runtime.model import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    ExecResult,
    Health,
    HealthStatus,
    LogConfig,
    ResourceLimits,
    without_data,
)
from worker.runtime.places import Places
from worker.runtime.process import open_process, send_signal
from worker.runtime.session import Session
from worker.runtime.spawn import Programs, RuntimeFailed, find_program, must_run, thread_pool
from worker.runtime.stopping import KILL, ends_within, parse_signal
from worker.runtime.table import Entry, Observer
from worker.runtime.view import clear_views
from worker.volumes.filesystems import VolumeUnavailable

log = logging.getLogger("shoal.runtime")

_MOUNTING = 8
"""How many file systems of volumes may be waited for at once."""

R = TypeVar("R")
Acted = Callable[[str, ContainerConfig, Mapping[str, str]], None]


class OCIRuntime(Places):
    """Containers under `root` (survives a restart of the machine) and `run` (does not).

    `cgroup_parent` is the cgroup path that all containers get theirs in. `workers` bounds how many containers
    are started at the same time: more threads than that only take CPU from each other. `open_files` is the
    soft limit of open files that containers get by default, when it is not this process's own. `default_log`
    is for containers that name no log driver, `default_init` for those that don't say if they want an init.
    """

    def __init__(
        self,
        root: Path,
        run: Path,
        cgroup_parent: str,
        *,
        clock: Clock,
        runtime: str = "crun",
        conmon: str = "conmon",
        workers: int = 4,
        cgroups: Cgroups | None = None,
        open_files: int | None = None,
        default_log: LogConfig | None = None,
        default_init: bool = False,
    ) -> None:
        self.default_log, self.default_init = default_log or LogConfig(), default_init
        layout = Layout(root.absolute(), run.absolute())
        self._clock = clock
        programs = Programs(find_program(conmon), find_program(runtime), layout.run / "oci")
        found = cgroups or detect()
        parent = "/" + cgroup_parent.strip("/")
        host = launch.inspect_host(found, open_files)
        super().__init__(layout, Launcher(layout, programs, host, found, parent))
        self._executor = Executor(programs, layout)
        self._pool = thread_pool(workers)
        self._mounting = ThreadPoolExecutor(_MOUNTING, "mount")
        self._acted: Acted = _not_told
        self._ends = Ends(self._table, self._launcher, clock, self._set, self._clear)
        self._inotify: Inotify | None = None
        self._policies: dict[str, RotationPolicy] = {}
        self._rotating: asyncio.Task[None] | None = None

    # --- life of the daemon ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Adopt the containers on disk."""
        self._layout.make()
        clear_views(self._layout)
        self._inotify = Inotify()
        watch_exits(self._inotify, self._layout.exits, self._ends.exit_written, self._ends.look)
        ids: set[str] = set()
        for id, config, state in self._layout.load():
            if config is None:
                log.warning("removing what is left of a container", extra={"container": id})
                await self._threaded(self._launcher.remove, id)
                continue
            ids.add(id)
            await self._adopt(config, state)
        self._rotating = asyncio.create_task(LogRotator(self._clock, self._limited_logs).run())
        self._rotating.add_done_callback(_report)
        strays = self._launcher.cgroups.children(self._launcher.cgroup_parent) - ids
        for id in strays:
            self._launcher.cgroups.kill(self._launcher.cgroup(id))
            await self._threaded(self._launcher.clear, id)

    async def _adopt(self, config: ContainerConfig, state: ContainerState | None) -> None:
        if state is None:
            state = ContainerState(status=ContainerStatus.EXITED, exit_code=UNKNOWN_EXIT_CODE)
        entry = self._add(config, state, rotation_policy(config.log))
        pidfd = None
        if state.running and state.process is not None:
            pidfd = open_process(state.process)
        if pidfd is not None:
            log.info("adopted a running container", extra={"container": config.id})
            self._ends.hold(config.id, pidfd)
        elif state.running:
            code = read_exit_code(self._layout.of(config.id).exit_file)
            self._ends.ended(entry, code, "" if code is not None else "ended while no daemon was watching")
        elif self._layout.of(config.id).bundle.exists():
            self._ends.begin_clearing(config.id)

    async def close(self) -> None:
        """Let go of the containers, which keep running."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        if self._rotating is not None:
            self._rotating.cancel()
            await asyncio.wait((self._rotating,))
        await self._ends.close()
        await self._executor.close()
        self._pool.shutdown()
        self._mounting.shutdown(wait=False)
        if not any(entry.state.running for entry in self._table):
            self._launcher.cgroups.remove_if_empty(self._launcher.cgroup_parent)
            self._layout.release()

    # --- operations ------------------------------------------------------------------------------------

    async def create(self, config: ContainerConfig) -> None:
        """Record a container."""
        if self._table.known(config.id):
            raise Conflict(f"container {config.id[:12]} exists already")
        if not config.args:
            raise InvalidArgument("no command specified")
        launch.check_mounts(config)
        if config.stop_signal:
            parse_signal(config.stop_signal)
        if not config.log.driver:
            config = msgspec.structs.replace(config, log=self.default_log)
        if config.init is None:
            config = msgspec.structs.replace(config, init=self.default_init)
        if config.log.driver == "journald":
            journald.must_be_available()
        policy = rotation_policy(config.log)
        tag(config)
        creating = asyncio.ensure_future(self._threaded(self._create, config))
        try:
            await asyncio.shield(creating)
        except asyncio.CancelledError:
            # The thread goes on, and nobody will know what it makes.
            await asyncio.wait((creating,))
            if creating.exception() is None:
                await self._threaded(self._launcher.remove, config.id)
            raise
        self._add(without_data(config), ContainerState(), policy)

    def _create(self, config: ContainerConfig) -> None:
        try:
            directory.create(self._layout.of(config.id), config)
        except BaseException:
            self._launcher.remove(config.id)
            raise

    async def reconfigure(self, config: ContainerConfig) -> None:
        """Put a container's changed config in place of its present one."""
        entry = self._table.find(config.id)
        await self._threaded(directory.save_config, self._layout.of(config.id), config)
        entry.config = without_data(config)

    async def update_resources(self, id: str, resources: ResourceLimits) -> None:
        """Change the limits of a container, at once if it runs. InvalidArgument when the kernel refuses."""
        entry = self._table.find(id)
        config = msgspec.structs.replace(entry.config, resources=resources)
        if entry.state.running:
            try:
                await self._threaded(self._launcher.update, config)
            except RuntimeFailed as error:
                raise InvalidArgument(f"cannot update container {id[:12]}: {error}") from error
        await self.reconfigure(config)

    async def start_container(
        self, id: str, *, restarts: int = 0, created: Callable[[], None] | None = None
    ) -> None:
        """Run a container. `created` is called, in a thread, when it is there and does not run yet."""
        entry = self._table.find(id)
        async with entry.lock:
            self._must_exist(entry)
            if entry.state.running:
                return
            await self._ends.cleared(id)
            try:
                await self._mount_volumes(entry.config)
                launched: Launched = await self._threaded(
                    self._launcher.launch, entry.config, created or _nothing
                )
            except ContainerStartFailed as error:
                failed = ContainerState(error=str(error), exit_code=error.exit_code, restarts=restarts)
                self._set(entry, failed)
                raise
            started = self._clock.now()
            health = HealthStatus.STARTING if entry.config.healthcheck else HealthStatus.NONE
            self._ends.hold(id, launched.pidfd)
            self._set(
                entry,
                ContainerState(
                    status=ContainerStatus.RUNNING,
                    pid=launched.process.pid,
                    process=launched.process,
                    started_at=started,
                    health=Health(status=health),
                    restarts=restarts,
                ),
            )
            # It may have ended before it was known to run; its word then came too early.
            self._ends.exit_written(id)

    async def _mount_volumes(self, config: ContainerConfig) -> None:
        """Mount the file systems behind its volumes, in threads of their own: a file server that does not
        answer must not keep other containers from starting. Raises ContainerStartFailed.
        """
        if not any(point.options_of_volume for point in config.mounts):
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._mounting, mounting.mount_volumes, config)
        except VolumeUnavailable as error:
            raise ContainerStartFailed(str(error)) from error

    async def signal(self, id: str, number: int) -> None:
        """Send a signal to a running container."""
        entry = self._table.find(id)
        pidfd = self._ends.pidfd(id)
        if not entry.state.running or pidfd is None:
            raise Conflict(f"container {id[:12]} is not running")
        self._acted("kill", entry.config, {"signal": str(number)})
        send_signal(pidfd, number)
        if number == KILL and entry.state.status is ContainerStatus.PAUSED:
            await self.resume(id)  # a frozen process can't even die

    async def stop(self, id: str, grace_ns: int | None = None, signal: str = "") -> None:
        """End a container."""
        entry = self._table.find(id)
        config = entry.config
        if not entry.state.running:
            return
        number = parse_signal(signal or config.stop_signal or "SIGTERM")
        grace = config.stop_grace_ns if grace_ns is None else grace_ns
        if entry.state.status is ContainerStatus.PAUSED:
            await self.resume(id)
        in_time = False
        if number != KILL and grace != 0:
            self._send(entry, number)
            in_time = await ends_within(self._table, entry, grace, self._clock)
        if not in_time:
            self._send(entry, KILL)
            await self._table.ended(entry)
        self._acted("stop", config, {})

    def _send(self, entry: Entry, number: int) -> None:
        pidfd = self._ends.pidfd(entry.config.id)
        if pidfd is not None:
            self._acted("kill", entry.config, {"signal": str(number)})
            send_signal(pidfd, number)

    async def pause(self, id: str) -> None:
        """Freeze a running container."""
        await self._freeze(id, "pause", ContainerStatus.RUNNING, ContainerStatus.PAUSED)

    async def resume(self, id: str) -> None:
        """Let a frozen container go on."""
        await self._freeze(id, "resume", ContainerStatus.PAUSED, ContainerStatus.RUNNING)

    async def _freeze(self, id: str, verb: str, before: ContainerStatus, after: ContainerStatus) -> None:
        entry = self._table.find(id)
        async with entry.lock:
            if entry.state.status is not before:
                raise Conflict(f"container {id[:12]} is not {before}")
            await self._threaded(must_run, self._launcher.programs.command(verb, id))
            if entry.state.status is before:
                self._set(entry, msgspec.structs.replace(entry.state, status=after))

    async def wait(self, id: str) -> ContainerState:
        """The state once the container does not run."""
        return await self._table.ended(self._table.find(id))

    async def remove(self, id: str, force: bool = False) -> None:
        """Forget a container."""
        entry = self._table.find(id)
        if entry.state.running:
            if not force:
                raise Conflict(f"cannot remove container {id[:12]}: container is running: stop it first")
            await self.stop(id, 0)
        async with entry.lock:
            if entry.removed:
                return
            if entry.state.running:
                raise Conflict(f"cannot remove container {id[:12]}: it was started again")
            await self._ends.cleared(id)
            await self._threaded(self._launcher.remove, id)
            self._policies.pop(id, None)
            self._table.drop(entry)

    def observe(self, observer: Observer, acted: Acted) -> None:
        """Have every change from now on told at once, and what is done to containers ("kill", "stop")."""
        self._table.observer = observer
        self._acted = acted

    async def exec(
        self,
        id: str,
        argv: Sequence[str],
        *,
        timeout_ns: int = 0,
        env: Sequence[str] = (),
        user: str = "",
        cwd: str = "",
        output_limit: int = 1 << 20,
    ) -> ExecResult:
        """Run a command in a running container."""
        entry = self._table.find(id)
        if entry.state.status is not ContainerStatus.RUNNING:
            raise Conflict(f"container {id[:12]} is not running")
        return await self._executor.run(
            id,
            argv,
            env=env,
            user=user,
            cwd=cwd,
            output_limit=output_limit,
            timeout=timeout_ns,
            clock=self._clock,
        )

    def open_exec(
        self,
        id: str,
        argv: Sequence[str],
        *,
        env: Sequence[str] = (),
        user: str = "",
        cwd: str = "",
        tty: bool = False,
        stdin: bool = False,
        privileged: bool = False,
    ) -> Session:
        """Run a command in a running container, with somebody at its streams."""
        entry = self._table.find(id)
        if entry.state.status is not ContainerStatus.RUNNING:
            raise Conflict(f"container {id} is not running")
        paths = self._layout.of(id)
        process = exec_process(
            paths,
            argv,
            env=env,
            user=user,
            cwd=cwd,
            tty=tty,
            privileged=privileged,
            fixed_env=entry.config.env,
        )
        name = f"session-{os.urandom(6).hex()}"  # one of an earlier daemon's may still run
        programs = self._launcher.programs
        return Session(programs, id, paths.bundle, name, process, tty=tty, stdin=stdin)

    def set_health(self, id: str, health: Health) -> None:
        """Record what the health checks found."""
        entry = self._table.find(id)
        self._set(entry, msgspec.structs.replace(entry.state, health=health))

    def logs(self, id: str, query: LogQuery) -> AsyncIterator[LogEntry]:
        """What the container has written. Conflict when its log driver keeps nothing."""
        entry = self._table.find(id)
        if entry.config.log.driver == "none":
            raise Conflict("configured logging driver does not support reading")
        return read_log(self._layout.of(id).log, query, self._inotify, lambda: self._table.ended(entry))

    def _limited_logs(self) -> Iterator[tuple[Path, Path, RotationPolicy]]:
        for id, policy in self._policies.items():
            if self._table.find(id).state.running:
                yield self._layout.of(id).log, self.control_path(id), policy

    # --- small helpers ---------------------------------------------------------------------------------

    def _add(self, config: ContainerConfig, state: ContainerState, policy: RotationPolicy | None) -> Entry:
        if policy is not None:
            self._policies[config.id] = policy
        return self._table.add(config, state)

    async def _clear(self, id: str) -> None:
        await self._threaded(self._launcher.clear, id)

    def _set(self, entry: Entry, state: ContainerState) -> None:
        try:
            directory.save_state(self._layout.of(entry.config.id), state)
        except OSError as error:
            # What is true is not held back by a full disk. A restart of the daemon may take it for less.
            log.error("can't store a container's state", extra={"error": str(error)})
        self._table.update(entry, state)

    @staticmethod
    def _must_exist(entry: Entry) -> None:
        if entry.removed:
            raise Conflict(f"container {entry.config.id[:12]} was removed")

    async def _threaded(self, function: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _not_told(action: str, config: ContainerConfig, attributes: Mapping[str, str]) -> None:
    """For a runtime that nobody observes."""


def _nothing() -> None:
    """For those who have nothing to do between a container's creation and its start."""


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("rotating logs failed", exc_info=task.exception())
