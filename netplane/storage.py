"""What the network plane keeps on disk: local networks (for good) and sandboxes (until the next boot)."""

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from cluster.codec import UNREADABLE
from netplane.model import LocalNetwork, SandboxRecord


def _encode_path(value: Any) -> Any:
    return str(value)


def _decode_path(kind: type, value: Any) -> Any:
    return kind(value)


_encoder = msgspec.json.Encoder(enc_hook=_encode_path)
_networks = msgspec.json.Decoder(list[LocalNetwork])
_sandbox = msgspec.json.Decoder(SandboxRecord, dec_hook=_decode_path)


class Storage:
    """Files under `state_dir` (survives a power loss) and `run_dir` (worth nothing after one)."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._networks = state_dir / "networks.json"
        self._sandboxes = run_dir / "sandboxes"
        self.namespaces = run_dir / "netns"

    def open(self) -> None:
        """Make the directories."""
        for path in (self._networks.parent, self._sandboxes, self.namespaces):
            path.mkdir(parents=True, exist_ok=True)

    def load_networks(self) -> list[LocalNetwork]:
        """The local networks as last saved."""
        try:
            return _networks.decode(self._networks.read_bytes())
        except FileNotFoundError:
            return []

    def save_networks(self, networks: list[LocalNetwork]) -> None:
        """Save the local networks so that a power loss keeps the old list or the new one."""
        partial = self._networks.with_suffix(".partial")
        with open(partial, "wb") as file:
            file.write(_encoder.encode(networks))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._networks)
        directory = os.open(self._networks.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def load_sandboxes(self) -> list[SandboxRecord]:
        """The sandboxes that were there; one half-written by a power loss is gone anyway."""
        found: list[SandboxRecord] = []
        for path in sorted(self._sandboxes.glob("*.json")):
            try:
                found.append(_sandbox.decode(path.read_bytes()))
            except UNREADABLE:
                path.unlink()
        return found

    def save_sandbox(self, record: SandboxRecord) -> None:
        """Save a sandbox. Not synced: after a power loss there is no sandbox to find."""
        path = self._sandboxes / f"{record.sandbox.id}.json"
        partial = path.with_suffix(".partial")
        partial.write_bytes(_encoder.encode(record))
        partial.replace(path)

    def forget_sandbox(self, sandbox_id: str) -> None:
        """Forget a sandbox."""
        with contextlib.suppress(FileNotFoundError):
            (self._sandboxes / f"{sandbox_id}.json").unlink()

    def netns(self, sandbox_id: str) -> Path:
        """Where a sandbox's namespace is mounted."""
        return self.namespaces / sandbox_id
