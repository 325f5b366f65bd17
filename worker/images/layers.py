"""Unpacked layers on disk, one directory for each distinct layer, shared by all images that have it.

    ROOT/l/KEY/d           the files, ready to be an overlayfs lower directory
    ROOT/l/KEY/blob        the layer as it was received (compressed), from which it can be saved or pushed
    ROOT/l/KEY/layer.json  what it is
    ROOT/tmp/              work in progress, thrown away at start

KEY is short, since overlayfs takes all lower directories in one page: 127 of them, each as `l/KEY/d`
relative to ROOT, fit. All methods block and may be called from threads.
"""

import base64
import ctypes
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path

import msgspec

from cluster.codec import UNREADABLE
from worker.images.digest import hex_of
from worker.images.errors import InvalidImage

_log = logging.getLogger("shoal.images")
_KEY_BYTES = 13
_ROOT_MODE = 0o755
"""Of a root directory that the layer itself does not mention."""
_libc = ctypes.CDLL(None, use_errno=True)


class Layer(msgspec.Struct, frozen=True):
    """One layer: digest and bytes of its tar, bytes of its files, digest and bytes of the kept blob."""

    diff_id: str
    tar_bytes: int
    size: int
    blob_digest: str
    blob_bytes: int

    @property
    def key(self) -> str:
        """The directory's name: 104 bits of the digest in base 32."""
        return base64.b32encode(bytes.fromhex(hex_of(self.diff_id))[:_KEY_BYTES]).decode().rstrip("=").lower()


class LayerStore:
    """The layers below one root directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._layers: dict[str, Layer] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Throw away unfinished work and read what is there."""
        for directory in (self._layers_dir, self._tmp):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        for leftover in list(self._tmp.iterdir()):
            _remove(leftover)
        for directory in list(self._layers_dir.iterdir()):
            try:
                layer = msgspec.json.decode((directory / "layer.json").read_bytes(), type=Layer)
            except (OSError, *UNREADABLE) as error:
                _log.warning("dropping a damaged layer", extra={"path": str(directory), "error": str(error)})
                _remove(self._take_away(directory))
                continue
            if layer.key == directory.name:
                self._layers[layer.diff_id] = layer

    def get(self, diff_id: str) -> Layer | None:
        """The layer, when it is here whole."""
        return self._layers.get(diff_id)

    def all(self) -> list[Layer]:
        """Every layer."""
        return list(self._layers.values())

    def path(self, diff_id: str) -> Path:
        """The layer's lower directory; KeyError when it is not here."""
        return self.root / self.relative(diff_id)

    def relative(self, diff_id: str) -> str:
        """The same relative to the root: `l/KEY/d`."""
        return f"l/{self._layers[diff_id].key}/d"

    def blob(self, diff_id: str) -> Path:
        """The kept blob."""
        return self._layers_dir / self._layers[diff_id].key / "blob"

    def stage(self) -> Path:
        """A fresh working directory with an empty `d` in it; end it with `commit` or `discard`. Quick."""
        staging = Path(tempfile.mkdtemp(dir=self._tmp))
        (staging / "d").mkdir()
        (staging / "d").chmod(_ROOT_MODE)
        return staging

    def discard(self, staging: Path) -> None:
        """Throw a working directory away."""
        _remove(staging)

    def commit(self, staging: Path, layer: Layer) -> None:
        """Make a staged layer permanent: everything reaches the disk before its name does."""
        (staging / "layer.json").write_bytes(msgspec.json.encode(layer))
        staging.chmod(0o711)
        sync_file_system(staging)
        with self._lock:
            target = self._layers_dir / layer.key
            if (known := self._layers.get(layer.diff_id)) is None:
                if target.exists():
                    raise InvalidImage(f"layer {layer.diff_id} collides with another layer's key")
                staging.rename(target)
                sync_directory(self._layers_dir)
                self._layers[layer.diff_id] = layer
        if known is not None:
            _remove(staging)

    def detach(self, diff_id: str) -> Path:
        """Take a layer that nobody uses out of sight in one quick step; `discard` what this returns."""
        with self._lock:
            return self._take_away(self._layers_dir / self._layers.pop(diff_id).key)

    @property
    def _layers_dir(self) -> Path:
        return self.root / "l"

    @property
    def _tmp(self) -> Path:
        return self.root / "tmp"

    def _take_away(self, directory: Path) -> Path:
        doomed = Path(tempfile.mkdtemp(dir=self._tmp))
        directory.rename(doomed / "layer")
        return doomed


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: Path) -> None:
    """Write back everything on the file system that holds `path` (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(fd)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file in one step that survives power loss."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
