"""Images as the Docker Engine API 1.50 shows them. Pure functions from the model to JSON-ready values."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cluster.errors import ShoalError
from worker.images.config import ConfigDocument, ContainerDefaults
from worker.images.model import Image, Removal, ResolvedDescriptor
from worker.images.query import created_seconds

_LEGACY_CONFIG: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
_NEVER = "0001-01-01T00:00:00Z"


def image_summary(image: Image, *, containers: int = -1, shared_size: int = -1) -> dict[str, Any]:
    """One item of `GET /images/json`; -1 means not counted."""
    return {
        "Containers": containers,
        "Created": created_seconds(image),
        "Id": image.id,
        "Labels": image.config.labels or None,
        "ParentId": image.parent,
        "RepoDigests": list(image.repo_digests),
        "RepoTags": list(image.repo_tags),
        "SharedSize": shared_size,
        "Size": image.size,
    }


def image_inspect(image: Image, document: ConfigDocument) -> dict[str, Any]:
    """`GET /images/{name}/json`."""
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": document.comment,
        "Created": document.created or _NEVER,
        "DockerVersion": document.docker_version,
        "Author": document.author,
        "Config": container_defaults(document.config or ContainerDefaults()),
        "Architecture": document.architecture,
        "Os": document.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": _graph(image)},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": _rfc3339(image.tagged_at) if image.tagged_at else _NEVER},
    }
    if document.variant:
        shown["Variant"] = document.variant
    if document.os_version:
        shown["OsVersion"] = document.os_version
    return shown


def container_defaults(defaults: ContainerDefaults) -> dict[str, Any]:
    """The `Config` part; fields that no image has any more are shown empty, as old clients look for them."""
    sets = {"ExposedPorts": defaults.exposed_ports, "Volumes": defaults.volumes}
    plain = msgspec.structs.replace(defaults, exposed_ports=None, volumes=None)
    shown: dict[str, Any] = {name: {key: {} for key in value} for name, value in sets.items() if value}
    return {**_LEGACY_CONFIG, **msgspec.to_builtins(plain), **shown}


def image_history(image: Image, document: ConfigDocument, layer_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """`GET /images/{name}/history`, newest step first; `layer_sizes` as the store gives them."""
    sizes = iter(layer_sizes)
    steps: list[dict[str, Any]] = [
        {
            "Id": "<missing>",
            "Created": _seconds(step.created),
            "CreatedBy": step.created_by,
            "Tags": None,
            "Size": 0 if step.empty_layer else next(sizes, 0),
            "Comment": step.comment,
        }
        for step in document.history or ()
    ]
    steps += [
        {"Id": "<missing>", "Created": 0, "CreatedBy": "", "Tags": None, "Size": size, "Comment": ""}
        for size in sizes
    ]
    steps.reverse()
    if steps:
        steps[0] |= {"Id": image.id, "Tags": list(image.repo_tags) or None}
    return steps


def removal_items(removal: Removal) -> list[dict[str, str]]:
    """`DELETE /images/{name}`."""
    return [{verb: what} for verb, what in removal.steps]


def prune_report(removal: Removal) -> dict[str, Any]:
    """`POST /images/prune`."""
    return {"ImagesDeleted": removal_items(removal) or None, "SpaceReclaimed": removal.reclaimed}


def distribution_inspect(resolved: ResolvedDescriptor) -> dict[str, Any]:
    """`GET /distribution/{name}/json`."""
    return {
        "Descriptor": {
            "mediaType": resolved.descriptor.media_type,
            "digest": resolved.descriptor.digest,
            "size": resolved.descriptor.size,
        },
        "Platforms": [msgspec.to_builtins(platform) for platform in resolved.platforms],
    }


def error_line(error: Exception) -> dict[str, Any]:
    """The last message of a progress stream that fails after it began."""
    message = str(error) or type(error).__name__
    detail: dict[str, Any] = {"message": message}
    if isinstance(error, ShoalError) and error.status != 500:
        detail["code"] = error.status
    return {"errorDetail": detail, "error": message}


def _graph(image: Image) -> dict[str, str]:
    if not image.layers:
        return {}
    upper, *lower = reversed(image.layers)
    data = {"UpperDir": str(upper)}
    if lower:
        data["LowerDir"] = ":".join(map(str, lower))
    return data


def _seconds(created: str | None) -> int:
    try:
        return int(datetime.fromisoformat(created or "").timestamp())
    except (ValueError, OverflowError):
        return 0


def _rfc3339(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{fraction:09d}Z"
