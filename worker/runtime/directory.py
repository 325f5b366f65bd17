"""Where a container lies on disk, and its records there.

    ROOT/<id>/container.json   config (0600)     RUN/bundles/<id>/  OCI bundle with rootfs/ (mount point),
    ROOT/<id>/state.json       state                                etc/, pid files, conmon's sockets
    ROOT/<id>/upper, work      writable layer    RUN/exits/<id>     exit code, written by conmon
    ROOT/<id>/container.log*   output            RUN/files/<id>/    secrets and configs (tmpfs)
                                                 RUN/oci/           the OCI runtime's own state

Configs and states are replaced by rename, so that a crash of the
daemon never shows half of one. Neither is synced: after a power loss no container runs anyway, and one whose
config was lost with the page cache is removed. As little as can be is on the disk, where making a file takes
far longer than under RUN.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.codec import UNREADABLE
from worker.runtime import syscalls
from worker.runtime.model import (
    ContainerConfig,
    ContainerState,
    decode_config,
    decode_state,
    encode_config,
    encode_record,
)

log = logging.getLogger("shoal.runtime")

CONFIG, STATE = "container.json", "state.json"


_TMPFS_MAGIC, _RAMFS_MAGIC = 0x01021994, 0x858458F6
_SECRET_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def in_memory(path: Path) -> bool:
    """True when the path is on a file system that is never written to a disk (but may be swapped)."""
    return syscalls.filesystem_type(str(path)) in (_TMPFS_MAGIC, _RAMFS_MAGIC)


@dataclass(frozen=True)
class ContainerPaths:
    """All paths of one container."""

    home: Path
    bundle: Path
    exit_file: Path
    files: Path

    @property
    def rootfs(self) -> Path:
        """Mount point of the root file system."""
        return self.bundle / "rootfs"

    @property
    def mounts(self) -> Path:
        """Where images and directories inside volumes are mounted, to be bound into the container."""
        return self.bundle / "mounts"

    @property
    def log(self) -> Path:
        """The log that conmon writes."""
        return self.home / "container.log"


@dataclass(frozen=True)
class Layout:
    """The two roots: `root` survives a restart of the machine, `run` does not."""

    root: Path
    run: Path

    @property
    def exits(self) -> Path:
        """Where conmon writes exit codes."""
        return self.run / "exits"

    def of(self, id: str) -> ContainerPaths:
        """The paths of a container."""
        return ContainerPaths(
            self.root / id, self.run / "bundles" / id, self.exits / id, self.run / "files" / id
        )

    def make(self) -> None:
        """Create the directories that all containers share."""
        for path in (self.root, self.run / "bundles", self.exits, self.run / "files", self.run / "oci"):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
        files = self.run / "files"
        files.chmod(0o700)
        if not in_memory(files):
            # The run directory is on a disk: secrets get a tmpfs of their own.
            syscalls.mount("tmpfs", str(files), "tmpfs", _SECRET_FLAGS, "mode=700")

    def release(self) -> None:
        """Undo what `make` mounted; when no container is left."""
        files = self.run / "files"
        if not any(files.iterdir()):
            syscalls.unmount(str(files))

    def load(self) -> Iterator[tuple[str, ContainerConfig | None, ContainerState | None]]:
        """All containers on disk; config None for debris, state None when it was lost."""
        for entry in sorted(os.scandir(self.root), key=lambda item: item.name):
            home = Path(entry.path)
            config = None
            state: ContainerState | None = ContainerState()  # none was stored before the first start
            try:
                config = decode_config((home / CONFIG).read_bytes())
            except (OSError, *UNREADABLE) as error:
                log.warning(
                    "container without a readable record", extra={"path": str(home), "why": str(error)}
                )
            try:
                state = decode_state((home / STATE).read_bytes())
            except FileNotFoundError:
                pass
            except (OSError, *UNREADABLE) as error:
                state = None
                log.warning(
                    "container without a readable state", extra={"path": str(home), "why": str(error)}
                )
            yield entry.name, config, state


def create(paths: ContainerPaths, config: ContainerConfig) -> None:
    """Make a new container's directory. Its config is written last: until then it is debris."""
    home = str(paths.home)
    os.mkdir(home, 0o711)
    os.mkdir(f"{home}/upper", 0o755)
    os.mkdir(f"{home}/work", 0o755)
    if config.files:
        paths.files.mkdir(mode=0o700)
        for index, file in enumerate(config.files):
            target = paths.files / str(index)
            _write(target, file.data, file.mode)
            os.chown(target, file.uid, file.gid)
            target.chmod(file.mode)
    _write(paths.home / CONFIG, encode_config(config), 0o600)


def save_config(paths: ContainerPaths, config: ContainerConfig) -> None:
    """Store a changed config in place of the present one."""
    temporary = paths.home / f"{CONFIG}.new"
    _write(temporary, encode_config(config), 0o600)
    temporary.rename(paths.home / CONFIG)


def create_bundle(paths: ContainerPaths, config: ContainerConfig) -> None:
    """Make the bundle's directory with the files that the container sees under /etc."""
    bundle = str(paths.bundle)
    os.mkdir(bundle, 0o711)
    os.mkdir(f"{bundle}/rootfs", 0o755)
    os.mkdir(f"{bundle}/etc", 0o755)
    etc = paths.bundle / "etc"
    _write(etc / "hostname", f"{config.hostname or config.id[:12]}\n".encode(), 0o644)
    _write(etc / "hosts", config.hosts.encode(), 0o644)
    _write(etc / "resolv.conf", config.resolv_conf.encode(), 0o644)


def save_state(paths: ContainerPaths, state: ContainerState) -> None:
    """Store the state."""
    temporary = paths.home / f"{STATE}.new"
    _write(temporary, encode_record(state), 0o600)
    temporary.rename(paths.home / STATE)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
