"""A container's files as it sees them, for the daemon: also those of a container that does not run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from cluster.errors import InvalidArgument
from worker.runtime import rootfs, syscalls
from worker.runtime.directory import Layout
from worker.runtime.model import ContainerConfig, ContainerState, MountKind

_numbers = count()


@contextmanager
def opened_root(
    layout: Layout, config: ContainerConfig, state: ContainerState, *, mounts: bool
) -> Iterator[rootfs.Root]:
    """The root file system, with what is mounted in it unless `mounts` is False. It blocks.

    Nobody may start the container meanwhile.
    """
    if state.running:
        path = Path(f"/proc/{state.pid}/root") if mounts else layout.of(config.id).rootfs
        with rootfs.opened(path) as root:
            yield root
        return
    paths = layout.of(config.id)
    target = _views(layout) / f"{config.id}.{next(_numbers)}"
    target.mkdir(mode=0o700, parents=True)
    try:
        rootfs.mount_overlay(config.layers, paths.home / "upper", paths.home / "work", target)
        try:
            with rootfs.opened(target) as root:
                if mounts:
                    _bind_mounts(config, root)
                yield root
        finally:
            syscalls.unmount(str(target))  # with all that is mounted in it
    finally:
        target.rmdir()


def clear_views(layout: Layout) -> None:
    """Remove what a daemon left that was killed."""
    views = _views(layout)
    if not views.exists():
        return
    for target in views.iterdir():
        while syscalls.unmount(str(target)):
            pass
        target.rmdir()


def _views(layout: Layout) -> Path:
    return layout.run / "views"


def _bind_mounts(config: ContainerConfig, root: rootfs.Root) -> None:
    """Mount volumes and directories of the host where the container has them, as far as the places exist."""
    for point in sorted(config.mounts, key=lambda item: item.target.count("/")):
        if point.kind not in (MountKind.BIND, MountKind.VOLUME) or point.source is None:
            continue
        try:
            if point.source.is_dir():
                root.make_directories(point.target)  # as its start would
            place = root.open(point.target, os.O_PATH)
        except (OSError, InvalidArgument):
            continue
        try:
            syscalls.mount(str(point.source), f"/proc/self/fd/{place}", "", syscalls.MS_BIND)
        finally:
            os.close(place)
