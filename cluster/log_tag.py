"""The tag of a container's log: a Go template about the container, with Docker's functions."""

from collections.abc import Callable, Mapping

from cluster.template import Function, Record, TemplateError, render

DEFAULT_TAG = "{{.ID}}"
_ENGINE = "docker"  # what `.DaemonName` says in dockerd


class _Labels(dict[str, object]):
    """Labels of which none is an error to name: Docker is not as strict here as SwarmKit."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return "<no value>"


def tag(
    layout: str,
    *,
    id: str = "",
    name: str = "",
    image_id: str = "",
    image_name: str = "",
    command: str = "",
    labels: Mapping[str, str] | None = None,
) -> str:
    """The tag of a container for the log option `tag` ("" for the usual one). Raises TemplateError."""
    fields = Record(
        ID=id[:12],
        FullID=id,
        Name=name,
        ImageID=image_id.removeprefix("sha256:")[:12],
        ImageFullID=image_id,
        ImageName=image_name,
        Command=command,
        DaemonName=_ENGINE,
        ContainerID=id,
        ContainerName=f"/{name}",
        ContainerImageID=image_id,
        ContainerImageName=image_name,
        ContainerLabels=_Labels(labels or {}),
    )
    return render(layout or DEFAULT_TAG, fields, _FUNCTIONS)


def _of_text(function: Callable[[str], object]) -> Function:
    def call(value: object) -> object:
        return function(_text(value))

    return call


def _split(value: object, separator: object) -> list[str]:
    parts = _text(value), _text(separator)
    return parts[0].split(parts[1]) if parts[1] else list(parts[0])


def _truncate(value: object, length: object) -> str:
    if not isinstance(length, int) or length < 0:
        raise TemplateError("truncate takes a text and a length")
    return _text(value)[:length]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TemplateError("a text is needed here")
    return value


_FUNCTIONS: dict[str, Function] = {
    "lower": _of_text(str.lower),
    "upper": _of_text(str.upper),
    "title": _of_text(str.title),
    "split": _split,
    "truncate": _truncate,
}
