"""Small images built offline from this machine's own busybox, for tests that need something to run."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from worker.images.build import install_program, write_archive
from worker.images.config import ImageConfig

_LIBRARIES = Path("/lib/x86_64-linux-gnu")
_DIRECTORIES = (
    "bin",
    "dev",
    "etc",
    "home",
    "lib",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "usr/bin",
    "var",
)
_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n"
    ),
    "etc/group": "root:x:0:\nwww-data:x:33:\nusers:x:100:\nnobody:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
DEFAULT_CONFIG = ImageConfig(
    cmd=("sh",), env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
)


def busybox_rootfs(rootfs: Path, files: Mapping[str, str | bytes] | None = None) -> Path:
    """Fill a directory with busybox, its libc with name look-ups, the usual directories, and `files`.

    The dynamic busybox is taken: Debian's static one crashes in getaddrinfo. `sleep` is coreutils', because
    busybox 1.35 has no `sleep infinity`. A file whose content starts with `#!` becomes executable.
    """
    for directory in _DIRECTORIES:
        (rootfs / directory).mkdir(parents=True, exist_ok=True)
    tmp = rootfs / "tmp"
    tmp.mkdir(exist_ok=True)
    tmp.chmod(0o1777)
    busybox = Path(os.path.realpath(shutil.which("busybox") or "/bin/busybox"))
    install_program(rootfs, busybox)
    install_program(rootfs, Path("/bin/sleep"))
    for library in ("libnss_files.so.2", "libnss_dns.so.2"):
        if (_LIBRARIES / library).exists():
            install_program(rootfs, _LIBRARIES / library)
    installed = rootfs / str(busybox).lstrip("/")
    applets = subprocess.check_output([busybox, "--list"], text=True).split()
    for applet in {*applets, "busybox"}:
        if not (link := rootfs / "bin" / applet).exists():
            link.hardlink_to(installed)
    for name, content in {**_FILES, **(files or {})}.items():
        path = rootfs / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(data)
        path.chmod(0o755 if data.startswith(b"#!") else 0o644)
    return rootfs


def build_image(
    directory: Path,
    name: str = "busybox:latest",
    files: Mapping[str, str | bytes] | None = None,
    config: ImageConfig = DEFAULT_CONFIG,
) -> Path:
    """Build an image in `directory` and return its docker-archive, ready for `docker load`."""
    label = name.replace("/", "_").replace(":", "_")
    rootfs = directory / f"{label}.rootfs"
    try:
        busybox_rootfs(rootfs, files)
        archive = directory / f"{label}.tar"
        write_archive(rootfs, archive, name, config)
    finally:
        shutil.rmtree(rootfs, ignore_errors=True)
    return archive
