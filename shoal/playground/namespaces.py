"""The system calls that turn a process into a host: namespaces, mounts, hostname.

Runs inside the supervisor, before and after its fork. Python 3.11 lacks os.unshare and any mount, so libc is
called directly.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from shoal.playground import cgroups

# <sched.h>
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# <sys/mount.h>
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare() -> None:
    """Leave the machine's namespaces; the next child is process 1 of the new PID namespace.

    Raises:
        OSError: the kernel refuses; usually for want of privileges.
    """
    flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2).

    Raises:
        OSError: as the system call's.
    """
    _check(
        _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, data.encode()),
        f"mount {kind or source} on {target}",
    )


def detach(target: Path) -> None:
    """Unmount `target`, if it is a mount, with all below it, in this mount namespace only.

    Raises:
        OSError: as umount2(2)'s.
    """
    if target.is_mount():
        _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def set_hostname(name: str) -> None:
    """Name this UTS namespace."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, len(encoded)), "sethostname")


def loopback_up() -> None:
    """Bring up `lo` in this network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = bytearray(struct.pack("16sH14x", b"lo", 0))
        fcntl.ioctl(control, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", request, 16)
        struct.pack_into("H", request, 16, flags | _IFF_UP)
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)


def mount_host_filesystem(etc: dict[str, str]) -> None:
    """Give this mount namespace its own /proc, /run, /sys and /etc; the rest is the machine's.

    Args:
        etc: files to write to /etc, by name. All writes to /etc stay in this host, and are gone after a power
            loss.
    """
    # Slave: the machine may unmount its disks without the playground holding them, and sees nothing of ours.
    mount("none", Path("/"), flags=MS_REC | MS_SLAVE)
    mount("proc", Path("/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    detach(Path("/run"))
    mount("tmpfs", Path("/run"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for folder in ("lock", "netns", "shoal-playground/upper", "shoal-playground/work"):
        Path("/run", folder).mkdir(parents=True)
    layers = "lowerdir=/etc,upperdir=/run/shoal-playground/upper,workdir=/run/shoal-playground/work"
    mount("overlay", Path("/etc"), "overlay", data=layers)
    for name, content in etc.items():
        path = Path("/etc", name)
        path.unlink(missing_ok=True)  # resolv.conf is often a link into /run, which is empty here
        path.write_text(content)
    _mount_cgroups(cgroups.hierarchies())


def _mount_cgroups(hierarchies: Sequence[cgroups.Hierarchy]) -> None:
    """Mount this network namespace's sysfs, and on it the cgroup hierarchies from this host's cgroup down."""
    links = {path.name: os.readlink(path) for path in cgroups.ROOT.iterdir() if path.is_symlink()}
    detach(Path("/sys"))
    mount("sysfs", Path("/sys"), "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if len(hierarchies) == 1 and hierarchies[0].mount == cgroups.ROOT:
        mount("cgroup2", cgroups.ROOT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        return
    mount("tmpfs", cgroups.ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755")
    for hierarchy in hierarchies:
        hierarchy.mount.mkdir()
        flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
        mount(hierarchy.kind, hierarchy.mount, hierarchy.kind, flags, hierarchy.options)
        controllers = hierarchy.mount / "cgroup.controllers"
        if hierarchy.unified and controllers.read_text().strip():
            # crun refuses hybrid mode when cgroup2 holds controllers: show it none.
            empty = Path("/run/shoal-playground/cgroup.controllers")
            empty.touch()
            mount(str(empty), controllers, flags=MS_BIND)
    for name, destination in links.items():
        (cgroups.ROOT / name).symlink_to(destination)
