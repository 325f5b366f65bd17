"""Making a container run and clearing up after it: the blocking part, called in a thread of the pool."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from cluster.errors import InvalidArgument, ShoalError
from worker.logs.attributes import tag_or_id
from worker.runtime import (
    apparmor,
    bundle,
    capabilities,
    directory,
    mounting,
    rootfs,
    selinux,
    spawn,
    syscalls,
)
from worker.runtime.cgroups import ROOT, Cgroups
from worker.runtime.directory import ContainerPaths, Layout
from worker.runtime.model import ContainerConfig, MountKind, ProcessIdentity
from worker.runtime.process import identify, send_signal
from worker.runtime.spawn import Programs, RuntimeFailed
from worker.runtime.users import resolve_user

INIT_CANDIDATES = (
    "/usr/bin/docker-init",
    "/usr/libexec/docker/docker-init",
    "/usr/bin/tini-static",
    "/usr/bin/catatonit",
)


class ContainerStartFailed(ShoalError):
    """The container could not run. `exit_code`: 127 no such command, 126 not executable, else 128."""

    def __init__(self, message: str, exit_code: int = 128) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Launched:
    """A running first process. The caller closes the pidfd."""

    process: ProcessIdentity
    pidfd: int


def find_init() -> Path | None:
    """A static init to mount into containers, if this node has one."""
    return next((Path(path) for path in INIT_CANDIDATES if os.access(path, os.X_OK)), None)


def inspect_host(cgroups: Cgroups, open_files: int | None = None) -> bundle.Host:
    """What this machine and process can give to containers.

    `open_files` is their soft limit of open files, when it is not to be this process's own.
    """
    swap = cgroups.unified or (ROOT / "memory" / "memory.memsw.limit_in_bytes").exists()
    return bundle.Host(
        machine=syscalls.machine(),
        unified_cgroups=cgroups.unified,
        capabilities=capabilities.own(),
        swap_accounting=swap,
        init=find_init(),
        open_files=open_files,
        apparmor=apparmor.supported(),
        selinux=selinux.supported(),
    )


@dataclass(frozen=True)
class Launcher:
    """What all containers of a node share."""

    layout: Layout
    programs: Programs
    host: bundle.Host
    cgroups: Cgroups
    cgroup_parent: str

    def cgroup(self, id: str) -> str:
        """A container's cgroup path."""
        return f"{self.cgroup_parent}/{id}"

    def launch(self, config: ContainerConfig, created: Callable[[], None]) -> Launched:
        """Mount, create, start; `created` is called before the start. On failure everything is undone."""
        paths = self.layout.of(config.id)
        check_mounts(config)
        if bundle.apparmor_profile(config, self.host) == apparmor.PROFILE:
            apparmor.ensure_loaded()
        try:
            directory.create_bundle(paths, config)
            paths.exit_file.unlink(missing_ok=True)
            upper, work = paths.home / "upper", paths.home / "work"
            label = selinux.mount_label(config.selinux) if self.host.selinux else ""
            rootfs.mount_overlay(config.layers, upper, work, paths.rootfs, label)
            _fill_volumes(config, paths)
            self._write_bundle(replace(config, mounts=mounting.prepare(config, paths)), paths)
            pid = spawn.start_conmon(self.programs, paths.bundle, self._conmon_options(config, paths))
            pidfd = os.pidfd_open(pid)  # it waits for `start`: the pid can't be another's yet
            try:
                process = identify(pid)
                if process is None:
                    raise RuntimeFailed("the container's first process ended before it was started")
                created()
                try:
                    spawn.must_run(self.programs.command("start", config.id))
                except RuntimeFailed:
                    send_signal(pidfd, 9)
                    raise
            except BaseException:
                os.close(pidfd)
                raise
        except (RuntimeFailed, OSError) as error:
            self.clear(config.id)
            raise _start_error(str(error)) from error
        except BaseException:
            self.clear(config.id)
            raise
        return Launched(process, pidfd)

    def _write_bundle(self, config: ContainerConfig, paths: ContainerPaths) -> None:
        with rootfs.opened(paths.rootfs) as root:
            user = resolve_user(
                config.user, config.groups, root.read_text("/etc/passwd"), root.read_text("/etc/group")
            )
            if config.cwd not in ("", "/"):
                root.make_directories(config.cwd, user.uid, user.gid)
        etc = paths.bundle / "etc"
        sources = bundle.Sources(
            paths.rootfs, etc / "hostname", etc / "hosts", etc / "resolv.conf", paths.files
        )
        spec = bundle.build(config, user, self.host, sources, self.cgroup(config.id))
        (paths.bundle / "config.json").write_bytes(spec)

    def _conmon_options(self, config: ContainerConfig, paths: ContainerPaths) -> list[str]:
        options = [
            "-c", config.id, "-u", config.id, "-n", config.name or config.id,
            *_log_options(config, paths), "--no-sync-log",
            "-p", str(paths.bundle / "pid"), "--conmon-pidfile", str(paths.bundle / "conmon.pid"),
            "--exit-dir", str(self.layout.exits), "--full-attach",
        ]  # fmt: skip
        if config.tty:
            options.append("-t")
        if config.open_stdin:
            options.append("-i")
            if config.tty or not config.stdin_once:
                options.append("--leave-stdin-open")
        return options

    def update(self, config: ContainerConfig) -> None:
        """Bring the limits of a running container in line with its config."""
        path = self.layout.of(config.id).bundle / "resources.json"
        path.write_bytes(bundle.changed_resources(config, self.host))
        spawn.must_run(self.programs.command("update", "--resources", str(path), config.id))

    def out_of_memory(self, id: str) -> bool:
        """True when the kernel killed a process of the container for want of memory."""
        return (self.layout.of(id).bundle / "oom").exists() or self.cgroups.out_of_memory(self.cgroup(id))

    def clear(self, id: str) -> None:
        """Remove what an ended container holds: secrets and configs, runtime state, mount, cgroup, bundle."""
        paths = self.layout.of(id)
        rootfs.remove_tree(paths.files)
        if (self.layout.run / "oci" / id).exists():
            spawn.run(self.programs.command("delete", "--force", id))
            rootfs.remove_tree(self.layout.run / "oci" / id)
        self.cgroups.remove(self.cgroup(id))
        mounting.undo(paths)
        while syscalls.unmount(str(paths.rootfs)):
            pass
        if paths.rootfs.exists():
            paths.rootfs.rmdir()  # refuses a mount point: nothing below goes before the mount has gone
        rootfs.remove_tree(paths.bundle)
        paths.exit_file.unlink(missing_ok=True)

    def remove(self, id: str) -> None:
        """Remove a container from disk, for good."""
        paths = self.layout.of(id)
        self.clear(id)
        if paths.home.exists():
            # Renamed first: a removal cut short leaves debris, never half a container.
            doomed = paths.home.with_name(f"{id.partition('.')[0]}.removed")
            paths.home.rename(doomed)
            rootfs.remove_tree(doomed)


def _fill_volumes(config: ContainerConfig, paths: ContainerPaths) -> None:
    """Empty volumes get what the image has in their places."""
    with rootfs.opened(paths.rootfs) as root:
        for point in config.mounts:
            if point.kind is MountKind.VOLUME and point.copy_up and point.source is not None:
                rootfs.copy_up(root, point.target, point.source)


def _log_options(config: ContainerConfig, paths: ContainerPaths) -> list[str]:
    file = f"k8s-file:{paths.log}"
    if config.log.driver == "none":
        return ["-l", "none"]
    if config.log.driver == "journald":
        return ["-l", "journald", "--log-tag", tag_or_id(config), "-l", file]
    return ["-l", file]


def check_mounts(config: ContainerConfig) -> None:
    """Refuse what can't be mounted, in Docker's words."""
    seen: set[str] = set()
    for point in config.mounts:
        if not point.target.startswith("/"):
            raise InvalidArgument(f"invalid mount path: {point.target!r} mount path must be absolute")
        target = os.path.normpath(point.target)
        if target == "/":
            raise InvalidArgument("invalid mount config: destination can't be '/'")
        if target in seen:
            raise InvalidArgument(f"Duplicate mount point: {point.target}")
        seen.add(target)
        if point.kind in (MountKind.TMPFS, MountKind.IMAGE):
            continue
        if point.source is None or not point.source.is_absolute():
            raise InvalidArgument(f"invalid mount config for {point.target}: its source must be absolute")
        if point.kind is MountKind.BIND and not point.source.exists():
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )


def _start_error(message: str) -> ContainerStartFailed:
    return ContainerStartFailed(f"failed to start container: {message}", spawn.start_exit_code(message))
