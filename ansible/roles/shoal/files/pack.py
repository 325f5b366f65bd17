"""Pack a checkout of Shoal for pip: the same content always gives the same bytes.

    pack.py SOURCE DIRECTORY

Writes an archive of SOURCE to DIRECTORY; an sdist or wheel is taken as it is. Prints, as JSON, the archive's
`path` and a `digest` that names its content. Runs on the controller, with any Python 3 that Ansible runs on.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

CONTENT = ("pyproject.toml", "README.md", "LICENSE", "cluster", "netplane", "worker", "manager", "shoal")
"""What an installation is made of."""

_DIGEST_LENGTH = 12


def files(source: Path) -> Iterator[Path]:
    """The files to pack, in a fixed order. Raises SystemExit when `source` is no checkout."""
    for name in CONTENT:
        path = source / name
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        else:
            raise SystemExit(f"{source} is no checkout of Shoal: it has no {name}; set shoal_source")


def pack(source: Path) -> bytes:
    """The archive's bytes."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for path in files(source):
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"shoal/{path.relative_to(source).as_posix()}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def main(source: Path, directory: Path) -> None:
    """Pack, and say what came of it."""
    if source.is_file():
        archive, content = source.resolve(), source.read_bytes()
    else:
        archive, content = directory / "shoal.tar.gz", pack(source)
        archive.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]
    sys.stdout.write(json.dumps({"path": str(archive), "digest": digest}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
