"""What the image store hands out."""

from dataclasses import dataclass
from pathlib import Path

from worker.images.config import ImageConfig
from worker.images.manifest import Descriptor, Platform


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is here whole.

    `layers` are its unpacked layers, lowest first; overlayfs' lowerdir wants them highest first. Each also as
    `layer_names`, relative to the store's root, for images whose absolute paths don't fit into one page:
    mount with that root as working directory. `size` is the bytes of all its files;
    `tagged_at` is in ns since the epoch.
    """

    id: str
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    config: ImageConfig
    size: int
    diff_ids: tuple[str, ...]
    layers: tuple[Path, ...]
    layer_names: tuple[str, ...]
    tagged_at: int
    parent: str = ""  # the id of the image that it was made of here

    @property
    def dangling(self) -> bool:
        """True when no tag names it."""
        return not self.repo_tags


@dataclass(frozen=True, slots=True)
class ResolvedDescriptor:
    """What a reference means in its registry now, and the platforms it serves."""

    reference: str
    descriptor: Descriptor
    platforms: tuple[Platform, ...]


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A container that keeps an image from being removed."""

    container_id: str
    image_id: str
    running: bool


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal did, in Docker's order: `(verb, what)` with verb Untagged or Deleted; bytes freed."""

    steps: tuple[tuple[str, str], ...]
    reclaimed: int = 0
