"""What a container has on this node: its entry, its files, its control group."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from worker.runtime.cgroups import Cgroups
from worker.runtime.directory import Layout
from worker.runtime.launch import Launcher
from worker.runtime.model import ContainerConfig, ContainerState
from worker.runtime.rootfs import Root
from worker.runtime.runtime import Change
from worker.runtime.table import ContainerTable
from worker.runtime.view import opened_root


class Places:
    """The part of the real runtime that changes no container."""

    def __init__(self, layout: Layout, launcher: Launcher) -> None:
        self._layout = layout
        self._launcher = launcher
        self._table = ContainerTable()

    def get(self, id: str) -> tuple[ContainerConfig, ContainerState]:
        """Config and state."""
        entry = self._table.find(id)
        return entry.config, entry.state

    def known(self, id: str) -> bool:
        """True when there is such a container."""
        return self._table.known(id)

    def list(self) -> Sequence[tuple[ContainerConfig, ContainerState]]:
        """All containers, oldest first."""
        return [(entry.config, entry.state) for entry in self._table]

    def watch(self) -> AsyncIterator[Change]:
        """Changes from now on."""
        return self._table.watch()

    def log_path(self, id: str) -> Path:
        """The container's newest log file (older ones: .1, .2, …)."""
        return self._layout.of(self._table.find(id).config.id).log

    def control_path(self, id: str) -> Path:
        """conmon's control FIFO: `1 HEIGHT WIDTH` resizes the terminal, `2 0 0` reopens the log."""
        return self._layout.of(id).bundle / "ctl"

    def resize(self, id: str, height: int, width: int) -> None:
        """Set the size of a container's terminal; may block for a moment."""
        control = os.open(self.control_path(id), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(control, f"1 {height} {width}\n".encode())
        finally:
            os.close(control)

    def opened_root(self, id: str, *, mounts: bool = True) -> AbstractContextManager[Root]:
        """A container's files, with volumes unless `mounts` is False; blocks. It must not start meanwhile."""
        entry = self._table.find(id)
        return opened_root(self._layout, entry.config, entry.state, mounts=mounts)

    def upper(self, id: str) -> Path:
        """The writable layer."""
        return self._layout.of(id).home / "upper"

    def cgroup(self, id: str) -> tuple[Cgroups, str]:
        """The control groups, and a container's path in them."""
        return self._launcher.cgroups, self._launcher.cgroup(id)

    def attach_path(self, id: str) -> Path:
        """conmon's SEQPACKET socket for standard streams."""
        return self._layout.of(id).bundle / "attach"

    def etc(self, id: str) -> Path:
        """Where the container's /etc/hostname, hosts and resolv.conf are; gone once it has ended."""
        return self._layout.of(id).bundle / "etc"

    def rootfs(self, id: str) -> Path:
        """The root file system; mounted while the container runs."""
        return self._layout.of(id).rootfs
