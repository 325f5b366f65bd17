"""Make an image from a directory: a docker-archive that is an OCI layout too (as `docker save` writes)."""

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from worker.images.config import ImageConfig, encode_config
from worker.images.digest import digest_of
from worker.images.layout import LaidOut, blob_name, documents
from worker.images.reference import Reference

_COPY_BYTES = 1 << 20


def write_archive(rootfs: Path, out: Path, ref: str, config: ImageConfig) -> str:
    """Write `rootfs` as a one-layer image named `ref` into the tar `out`; returns the image id.

    Owners, modes, times, hard links and file capabilities are kept as they are on disk. The archive can be
    given to `docker load`, `ImageStore.load` and `push_archive`.
    """
    reference = Reference.parse(ref)
    with tempfile.TemporaryFile(dir=out.parent) as layer:
        write_layer(rootfs, layer)
        size = layer.tell()
        diff_id = _digest_of_file(layer)
        document = encode_config(config, [diff_id])
        image = LaidOut(document, (reference,), ((diff_id, size),))
        with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
            layer.seek(0)
            _add(archive, blob_name(diff_id), layer, size)
            for name, content in documents([image]).items():
                _add(archive, name, io.BytesIO(content), len(content))
    return digest_of(document)


def write_layer(rootfs: Path, out: IO[bytes]) -> None:
    """Write a directory's content as an uncompressed layer tar, in path order."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for directory, subdirectories, files in os.walk(rootfs):
            subdirectories.sort()
            base = Path(directory)
            for name in sorted([*subdirectories, *files]):
                path = base / name
                layer.add(path, str(path.relative_to(rootfs)), recursive=False, filter=anonymous(path))


def install_program(rootfs: Path, program: Path) -> None:
    """Copy a program of this machine and the shared libraries it needs into `rootfs`, at their own paths."""
    listing = subprocess.run(["/usr/bin/ldd", program], capture_output=True, text=True, check=False)
    libraries = [
        word for line in listing.stdout.splitlines() for word in line.split() if word.startswith("/")
    ]
    for source in (str(program), *libraries):
        target = rootfs / source.lstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(os.path.realpath(source), target)


def anonymous(path: Path) -> Callable[[tarfile.TarInfo], tarfile.TarInfo]:
    """A tarfile filter that drops user names, which mean nothing elsewhere, and keeps file capabilities."""

    def apply(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uname = member.gname = ""
        if member.isreg():
            with contextlib.suppress(OSError):
                capability = os.getxattr(path, "security.capability", follow_symlinks=False)
                name = "SCHILY.xattr.security.capability"
                member.pax_headers = {name: capability.decode("utf-8", "surrogateescape")}
        return member

    return apply


def _digest_of_file(file: IO[bytes]) -> str:
    file.seek(0)
    state = hashlib.sha256()
    while chunk := file.read(_COPY_BYTES):
        state.update(chunk)
    return f"sha256:{state.hexdigest()}"


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    archive.addfile(member, content)
