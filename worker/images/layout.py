"""The documents of an image archive: a docker-archive and an OCI layout at once, as `docker save` writes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from worker.images.digest import digest_of, hex_of
from worker.images.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from worker.images.reference import Reference

_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class LaidOut:
    """An image to write: its configuration, names, and layers as (diff id, tar bytes), lowest first."""

    config: bytes
    references: tuple[Reference, ...]
    layers: tuple[tuple[str, int], ...]


def blob_name(digest: str) -> str:
    """Where an archive keeps content."""
    return f"blobs/sha256/{hex_of(digest)}"


def documents(images: Sequence[LaidOut]) -> dict[str, bytes]:
    """Every member but the layers, by name."""
    members: dict[str, bytes] = {}
    for image in images:
        for content in (image.config, _manifest(image)):
            members[blob_name(digest_of(content))] = content
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    members["index.json"] = _index(images)
    members["manifest.json"] = msgspec.json.encode([_docker_image(image) for image in images])
    return members


def _manifest(image: LaidOut) -> bytes:
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(image.config), "size": len(image.config)},
            "layers": [
                {"mediaType": _LAYER, "digest": diff_id, "size": size} for diff_id, size in image.layers
            ],
        }
    )


def _index(images: Iterable[LaidOut]) -> bytes:
    entries: list[dict[str, object]] = []
    for image in images:
        manifest = _manifest(image)
        entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(manifest), "size": len(manifest)}
        entries += [{**entry, "annotations": _annotations(name)} for name in image.references] or [entry]
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def _annotations(reference: Reference) -> dict[str, str]:
    return {
        "io.containerd.image.name": str(reference),
        "org.opencontainers.image.ref.name": reference.tag,
    }


def _docker_image(image: LaidOut) -> dict[str, object]:
    return {
        "Config": blob_name(digest_of(image.config)),
        "RepoTags": [reference.familiar for reference in image.references] or None,
        "Layers": [blob_name(diff_id) for diff_id, _ in image.layers],
    }
