"""A small image's root file system, made of this machine's busybox and its libraries."""

import os
import shutil
import subprocess
from pathlib import Path

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
_GROUP = "root:x:0:\ntty:x:5:\nwheel:x:10:root\nstaff:x:50:alice\nalice:x:1001:\n"


def make_rootfs(target: Path) -> Path:
    """Write the root file system; needs a dynamic busybox, as the static one's name look-ups crash."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    for name in ("bin", "etc", "root", "tmp", "dev", "proc", "sys", "data"):
        (target / name).mkdir(parents=True)
    (target / "tmp").chmod(0o1777)
    shutil.copy(busybox, target / "bin" / "busybox")
    libraries = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=True).stdout
    for line in libraries.splitlines():
        path = next((word for word in line.split() if word.startswith("/")), None)
        if path is not None:
            place = target / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(path), place)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    for name in applets.split():
        if name != "busybox":
            os.link(target / "bin" / "busybox", target / "bin" / name)
    (target / "etc" / "passwd").write_text(_PASSWD)
    (target / "etc" / "group").write_text(_GROUP)
    (target / "data" / "from-image").write_text("image\n")
    return target
