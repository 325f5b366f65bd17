"""A whole stack as its Compose files describe it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import InvalidArgument
from shoal.cli.client import Json
from shoal.stack import document, environment, reading
from shoal.stack.interpolation import interpolate
from shoal.stack.merging import merge
from shoal.stack.mounts import VOLUME_FIELDS, Mounts, external
from shoal.stack.namespace import Namespace
from shoal.stack.networks import Networks
from shoal.stack.node import ComposeError, Node
from shoal.stack.order import Circle, start_order
from shoal.stack.payloads import Payload, Payloads
from shoal.stack.services import Service, Surroundings, service

_SECTIONS = ("version", "name", "services", "networks", "volumes", "secrets", "configs")


@dataclass(frozen=True)
class Stack:
    """What is to be: everything in the form that the Engine API takes."""

    namespace: Namespace
    services: tuple[Service, ...]
    """In the order in which they start."""
    networks: Mapping[str, Json]
    outside_networks: Mapping[str, Node]
    secrets: tuple[Payload, ...]
    configs: tuple[Payload, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """The files of a stack as texts, and where they stand."""

    texts: Sequence[tuple[str, str]]
    """(name, text), later ones over earlier ones."""
    folder: Path
    """What relative paths start from: the first file's."""
    variables: Mapping[str, str] = field(default_factory=dict)


def read_files(paths: Sequence[str], environ: Mapping[str, str], stdin: str = "") -> Source:
    """The files named on a command line; `-` is standard input. Raises InvalidArgument."""
    if not paths:
        raise InvalidArgument("no Compose file is named: write -c FILE")
    texts = []
    for path in paths:
        try:
            text = stdin if path == "-" else Path(path).read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise InvalidArgument(f"{path}: can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidArgument(f"{path}: this is no text in UTF-8 (byte {error.start})") from error
        texts.append(("standard input" if path == "-" else path, text))
    folder = Path.cwd() if paths[0] == "-" else Path(os.path.abspath(paths[0])).parent
    return Source(texts, folder, environment.variables(folder, environ))


def tree(source: Source, warnings: list[str], *, interpolated: bool = True) -> Node:
    """The merged file, its variables replaced. Raises ComposeError."""
    merged: Node | None = None
    unset: dict[str, None] = {}
    for name, text in source.texts:
        parsed = document.parse(text, name)
        reading.fields(parsed, _SECTIONS)
        if interpolated:
            parsed = interpolate(parsed, source.variables, lambda variable: unset.update({variable: None}))
        merged = parsed if merged is None else merge(merged, parsed)
    warnings += [f"the variable {name} is not set: it counts as empty" for name in unset]
    assert merged is not None
    return merged


def load(source: Source, name: str) -> Stack:
    """The stack of that name. Raises InvalidArgument (ComposeError where a place in a file is to blame)."""
    namespace = Namespace(name)
    warnings: list[str] = []
    root = tree(source, warnings)
    sections = reading.fields(root, _SECTIONS)
    given = {key: sections.get(key, root.child(key, None)) for key in _SECTIONS}
    volumes = reading.entries(given["volumes"])
    for key, item in volumes.items():
        external(item, reading.fields(item, VOLUME_FIELDS), key)
    around = Surroundings(
        namespace=namespace,
        networks=Networks(namespace, given["networks"]),
        secrets=Payloads("secret", namespace, given["secrets"], source.folder, source.variables),
        configs=Payloads("config", namespace, given["configs"], source.folder, source.variables),
        mounts=Mounts(namespace, volumes, source.folder),
        folder=source.folder,
        variables=source.variables,
        warnings=warnings,
    )
    services = {key: service(key, item, around) for key, item in reading.entries(given["services"]).items()}
    if not services:
        raise ComposeError(given["services"], "there are no services")
    made, outside = around.networks.used()
    return Stack(
        namespace=namespace,
        services=tuple(services[key] for key in _order(services)),
        networks=made,
        outside_networks=outside,
        secrets=tuple(around.secrets.all.values()),
        configs=tuple(around.configs.all.values()),
        warnings=tuple(warnings),
    )


def _order(services: Mapping[str, Service]) -> list[str]:
    for found in services.values():
        for other in found.depends_on:
            if other not in services:
                raise ComposeError(found.node, f"depends_on names {other!r}, which is no service of the file")
    try:
        return start_order({name: found.depends_on for name, found in services.items()})
    except Circle as circle:
        raise ComposeError(
            services[circle.names[0]].node, f"depends_on goes in a circle: {circle}"
        ) from circle
