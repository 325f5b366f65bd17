"""Manifests and indexes, Docker schema 2 and OCI, and the choice of a platform in them."""

import platform as machine
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from cluster.errors import InvalidArgument
from worker.images.config import MAX_CONFIG_BYTES, MAX_LAYERS
from worker.images.digest import check_digest, digest_of
from worker.images.errors import InvalidImage, ManifestUnknown

MAX_MANIFEST_BYTES = 4 << 20
MAX_LAYER_BLOB_BYTES = 32 << 30
"""Compressed size of one layer that Shoal agrees to download."""

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
ACCEPTED = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX)
_CONFIG_TYPES = frozenset({DOCKER_CONFIG, OCI_CONFIG})
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
_WORD = re.compile(r"[A-Za-z0-9_.-]+\Z")


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an image runs on, as in an index' `platform`."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A typed, sized, digested pointer to content."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One image: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 2
    media_type: str = ""


class Index(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One image for several platforms."""

    manifests: list[Descriptor]
    schema_version: int = 2
    media_type: str = ""


class _Probe(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    manifests: list[msgspec.Raw] | None = None
    layers: list[msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index as received: what it says, and the exact bytes its digest covers."""

    content: bytes
    media_type: str
    parsed: Manifest | Index

    @property
    def digest(self) -> str:
        """The digest of the bytes."""
        return digest_of(self.content)


def decode_document(content: bytes, media_type: str = "") -> Document:
    """Parse and check a manifest or an index; raises InvalidImage.

    `media_type` is what the transport said; the document's own word and its shape win, so that a registry
    that answers `application/json` still works and a confusing document is refused.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise InvalidImage(f"image manifest is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        probe = msgspec.json.decode(content, type=_Probe)
        if probe.schema_version == 1:
            raise InvalidImage("image manifest is of schema 1, which is no longer supported; push it anew")
        if (probe.manifests is None) == (probe.layers is None):
            raise InvalidImage("image manifest must have either layers or manifests")
        parsed: Manifest | Index
        if probe.manifests is not None:
            parsed = msgspec.json.decode(content, type=Index)
            fallback, allowed = OCI_INDEX, (OCI_INDEX, DOCKER_LIST)
            descriptors = parsed.manifests
        else:
            parsed = msgspec.json.decode(content, type=Manifest)
            fallback, allowed = OCI_MANIFEST, (OCI_MANIFEST, DOCKER_MANIFEST)
            descriptors = [parsed.config, *parsed.layers]
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidImage(f"image manifest can't be read: {error}") from error
    if probe.media_type and probe.media_type not in allowed:
        raise InvalidImage(f"image manifest claims to be {probe.media_type!r} but is not")
    _check_descriptors(descriptors)
    if isinstance(parsed, Manifest):
        _check_manifest(parsed)
    stated = media_type.partition(";")[0].strip()
    return Document(content, probe.media_type or (stated if stated in allowed else fallback), parsed)


def _check_descriptors(descriptors: Sequence[Descriptor]) -> None:
    for descriptor in descriptors:
        check_digest(descriptor.digest)
        if descriptor.size < 0:
            raise InvalidImage(f"{descriptor.digest} has a negative size")


def _check_manifest(manifest: Manifest) -> None:
    if manifest.config.media_type not in _CONFIG_TYPES:
        raise InvalidImage(f"not a container image: its configuration is {manifest.config.media_type!r}")
    if manifest.config.size > MAX_CONFIG_BYTES:
        raise InvalidImage(f"image configuration is larger than {MAX_CONFIG_BYTES} bytes")
    if len(manifest.layers) > MAX_LAYERS:
        raise InvalidImage(f"image has more than {MAX_LAYERS} layers")
    for layer in manifest.layers:
        if layer.size > MAX_LAYER_BLOB_BYTES:
            raise InvalidImage(f"layer {layer.digest} is larger than {MAX_LAYER_BLOB_BYTES} bytes")


def host_platform() -> Platform:
    """The platform of this machine."""
    architecture, variant = _ARCHITECTURES.get(machine.machine(), (machine.machine(), ""))
    return Platform(architecture=architecture, os="linux", variant=variant)


def parse_platform(text: str) -> Platform:
    """Parse `os[/architecture[/variant]]` or a bare architecture; raises InvalidArgument."""
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(_WORD.match(part) for part in parts):
        raise InvalidArgument(f"{text!r} is not a platform; expected for example linux/amd64 or linux/arm/v7")
    words = [part.lower() for part in parts]
    host = host_platform()
    if len(words) == 1:
        known = {*_ALIASES, *_ALIASES.values(), "riscv64", "s390x", "ppc64le"}
        return (
            Platform(architecture=_ALIASES.get(words[0], words[0]), os="linux")
            if words[0] in known
            else Platform(architecture=host.architecture, os=words[0], variant=host.variant)
        )
    return Platform(
        architecture=_ALIASES.get(words[1], words[1]), os=words[0], variant=words[2] if len(words) > 2 else ""
    )


def satisfies(wanted: Platform, offered: Platform) -> bool:
    """True when an image for `offered` is one for `wanted`; arm64 without a variant means v8."""
    return (
        wanted.os == offered.os
        and wanted.architecture == offered.architecture
        and (not wanted.variant or _variant(wanted) == _variant(offered))
    )


def choose(index: Index, wanted: Platform) -> Descriptor:
    """The index' manifest for a platform: the first that satisfies it; raises ManifestUnknown."""
    for descriptor in index.manifests:
        if descriptor.platform and satisfies(wanted, descriptor.platform):
            if descriptor.size > MAX_MANIFEST_BYTES:
                raise InvalidImage(f"image manifest is larger than {MAX_MANIFEST_BYTES} bytes")
            return descriptor
    offered = ", ".join(sorted({str(found) for found in platforms(index)})) or "none"
    raise ManifestUnknown(
        f"no matching manifest for {wanted} in the manifest list entries (there are: {offered})"
    )


def platforms(index: Index) -> list[Platform]:
    """The platforms an index serves; attestations (`unknown/unknown`) aside."""
    return [entry.platform for entry in index.manifests if entry.platform and entry.platform.os != "unknown"]


def _variant(platform: Platform) -> str:
    return platform.variant or {"arm64": "v8", "arm": "v7"}.get(platform.architecture, "")
