"""File systems behind volumes: `docker volume create --opt type=nfs --opt o=addr=… --opt device=…`.

Mounted on the volume's directory when a container first needs it, and left there until the last one is gone.
"""

import ipaddress
import socket
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import ShoalError
from worker.runtime import syscalls
from worker.runtime.mountinfo import is_mount_point

_FLAGS = {
    "ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "sync": 0x10, "remount": 0x20, "mand": 0x40,
    "dirsync": 0x80, "noatime": 0x400, "nodiratime": 0x800, "bind": 0x1000, "rbind": 0x5000,
    "relatime": 1 << 21, "strictatime": 1 << 24,
}  # fmt: skip
_UNSET = {
    "rw": 0x1, "suid": 0x2, "dev": 0x4, "exec": 0x8, "async": 0x10, "nomand": 0x40, "atime": 0x400,
    "diratime": 0x800, "norelatime": 1 << 21, "nostrictatime": 1 << 24, "defaults": 0,
}  # fmt: skip
_PROPAGATION = {
    "private": 1 << 18, "rprivate": 1 << 18 | 0x4000, "slave": 1 << 19, "rslave": 1 << 19 | 0x4000,
    "shared": 1 << 20, "rshared": 1 << 20 | 0x4000,
}  # fmt: skip
_SECRET = ("password=", "pass=")
_locks: dict[Path, threading.Lock] = defaultdict(threading.Lock)
"""Two containers that start at once must not mount the same volume twice."""


class VolumeUnavailable(ShoalError):
    """The file system behind a volume can't be mounted."""


def mount_volume(name: str, path: Path, options: Mapping[str, str]) -> None:
    """Mount what the options name, unless it is mounted already. May block, for as long as a server does.

    Raises VolumeUnavailable.
    """
    kind, device = options.get("type", ""), options.get("device", "")
    with _locks[path]:
        if is_mount_point(path):
            return
        flags, data, propagation = parse_options(options.get("o", ""))
        try:
            syscalls.mount(device, str(path), kind, flags, _resolved(kind, data))
            if flags & syscalls.MS_BIND and flags & ~(syscalls.MS_BIND | syscalls.MS_REC):
                # Flags of a bind mount are looked at only when it is mounted again.
                syscalls.mount("", str(path), "", flags | _FLAGS["remount"])
            if propagation:
                syscalls.mount("", str(path), "", propagation)
        except OSError as error:
            raise VolumeUnavailable(
                f"error while mounting volume '{name}': failed to mount local volume: mount "
                f"{device}:{path}, data: {_redacted(data)}: {error.strerror}"
            ) from error


def unmount_volume(path: Path) -> None:
    """Unmount it; nothing there is fine. Raises OSError, and leaves what is still mounted alone."""
    while is_mount_point(path) and syscalls.unmount(str(path)):
        pass


def parse_options(text: str) -> tuple[int, str, int]:
    """mount(8)'s options: flags, what is left for the file system, flags of propagation."""
    flags = propagation = 0
    data = []
    for word in filter(None, text.split(",")):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word in _UNSET:
            flags &= ~_UNSET[word]
        elif word in _PROPAGATION:
            propagation |= _PROPAGATION[word]
        else:
            data.append(word)
    return flags, ",".join(data), propagation


def _resolved(kind: str, data: str) -> str:
    """For NFS and CIFS, the kernel wants an address where users write a name: `addr=nas.example`."""
    if not kind.startswith(("nfs", "cifs")):
        return data
    words = data.split(",")
    for place, word in enumerate(words):
        host = word.removeprefix("addr=")
        if host != word and not _is_address(host):
            words[place] = f"addr={socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]}"
    return ",".join(words)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _redacted(data: str) -> str:
    words = [
        word.partition("=")[0] + "=****" if word.startswith(_SECRET) else word for word in data.split(",")
    ]
    return ",".join(words)
