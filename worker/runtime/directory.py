"""Where a container lies on disk, and its records there.

    ROOT/<id>/container.json   config (0600)          RUN/bundles/<id>/  OCI bundle, pid files, sockets
    ROOT/<id>/state.json       state                  RUN/exits/<id>     exit code, written by conmon
    ROOT/<id>/upper, work      writable layer         RUN/files/<id>/    secrets and configs (tmpfs)
    ROOT/<id>/rootfs           mount point            RUN/oci/           the OCI runtime's own state
    ROOT/<id>/etc/             hosts, resolv.conf, hostname
    ROOT/<id>/log/             container.log, container.log.1, …

Records are replaced by rename, so that a crash of the daemon never shows half a record. They are not synced:
after a power loss no container runs anyway, and one whose record was lost with the page cache is removed.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

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
        return self.home / "rootfs"

    @property
    def log(self) -> Path:
        """The log that conmon writes."""
        return self.home / "log" / "container.log"


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
            config = state = None
            try:
                config = decode_config((home / CONFIG).read_bytes())
            except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
                log.warning(
                    "container without a readable record", extra={"path": str(home), "why": str(error)}
                )
            try:
                state = decode_state((home / STATE).read_bytes())
            except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
                log.warning(
                    "container without a readable state", extra={"path": str(home), "why": str(error)}
                )
            yield entry.name, config, state


def create(paths: ContainerPaths, config: ContainerConfig, state: ContainerState) -> None:
    """Make a new container's directory. Its record is written last: until then it is debris."""
    paths.home.mkdir(mode=0o710)
    for name in ("upper", "work", "rootfs", "etc", "log"):
        (paths.home / name).mkdir(mode=0o755)
    etc = paths.home / "etc"
    _write(etc / "hostname", f"{config.hostname or config.id[:12]}\n".encode(), 0o644)
    _write(etc / "hosts", config.hosts.encode(), 0o644)
    _write(etc / "resolv.conf", config.resolv_conf.encode(), 0o644)
    if config.files:
        paths.files.mkdir(mode=0o700)
        for index, file in enumerate(config.files):
            target = paths.files / str(index)
            _write(target, file.data, file.mode)
            os.chown(target, file.uid, file.gid)
            target.chmod(file.mode)
    save_state(paths, state)
    _replace(paths.home / CONFIG, encode_config(config))


def save_state(paths: ContainerPaths, state: ContainerState) -> None:
    """Store the state."""
    _replace(paths.home / STATE, encode_record(state))


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    _write(temporary, data, 0o600)
    temporary.rename(path)
