"""Hybrid cgroup machines: a mount namespace in which crun works.

crun 1.8 refuses every container where cgroup v1 is in use and some controller sits in the v2 tree at
/sys/fs/cgroup/unified ("cgroups in hybrid mode not supported"). It looks at one file, so the daemon moves to
a mount namespace of its own in which that file is empty. The namespace is kept by a bind mount under the
run directory: a restarted daemon returns to it and finds its containers' mounts.
"""

import errno
import os
from pathlib import Path

from cluster.errors import Unavailable
from worker.runtime import syscalls

CONTROLLERS = Path("/sys/fs/cgroup/unified/cgroup.controllers")

_NAMESPACE = "mount-namespace"


def needed() -> bool:
    """True when crun would refuse to work here."""
    try:
        return bool(CONTROLLERS.read_text().strip())
    except FileNotFoundError:
        return False


def enter(run: Path) -> bool:
    """Move the calling thread to the private mount namespace; False when the machine does not need it.

    Call it first thing, before other threads exist: they inherit it.
    """
    if not needed():
        return False
    keeper = run / _NAMESPACE
    file = keeper / "mnt"
    syscalls.unshare(syscalls.CLONE_FS)  # setns needs a file system context that no other thread shares
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = -1
    if descriptor >= 0:
        try:
            syscalls.setns(descriptor, syscalls.CLONE_NEWNS)
        except OSError:
            pass  # a plain file: the mount went with the last start of the machine
        else:
            return True
        finally:
            os.close(descriptor)
    _make(keeper, file)
    return True


def _make(keeper: Path, file: Path) -> None:
    keeper.mkdir(mode=0o700, parents=True, exist_ok=True)
    syscalls.mount(str(keeper), str(keeper), "", syscalls.MS_BIND)
    syscalls.mount("", str(keeper), "", syscalls.MS_PRIVATE)  # or the kernel refuses to pin a namespace here
    file.touch()
    empty = keeper / "empty"
    empty.touch()
    origin = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    cpus = os.sched_getaffinity(0)
    try:
        # A namespace can be pinned only in one with a lower number. Since Linux 6.18 each CPU deals out its
        # own numbers, so that a new namespace's may be lower; not on the CPU that ours was made on.
        pinned = _pin(file, empty, origin)
        for cpu in sorted(cpus):
            if pinned:
                break
            os.sched_setaffinity(0, {cpu})
            pinned = _pin(file, empty, origin)
        if not pinned:
            raise Unavailable(
                f"can't keep a mount namespace at {file}: start shoald in the machine's first mount namespace"
            )
    finally:
        os.sched_setaffinity(0, cpus)
        os.close(origin)


def _pin(file: Path, empty: Path, origin: int) -> bool:
    """Make the namespace, keep it at `file` and enter it; False when the kernel refuses to keep it there."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    syscalls.mount(str(empty), str(CONTROLLERS), "", syscalls.MS_BIND)
    ours = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(origin, syscalls.CLONE_NEWNS)
        try:
            syscalls.mount(f"/proc/self/fd/{ours}", str(file), "", syscalls.MS_BIND)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        syscalls.setns(ours, syscalls.CLONE_NEWNS)
        return True
    finally:
        os.close(ours)


def release(run: Path) -> None:
    """Forget the namespace; call it in the machine's own mount namespace, when no container runs."""
    keeper = run / _NAMESPACE
    syscalls.unmount(str(keeper / "mnt"))
    syscalls.unmount(str(keeper))
