"""Stacks from texts, for the tests of this folder."""

from collections.abc import Mapping
from pathlib import Path

from shoal.cli.client import Json
from shoal.stack.stack import Source, Stack, load


def stack(*texts: str, folder: Path = Path("/srv"), variables: Mapping[str, str] | None = None) -> Stack:
    """The stack `s` of some files, the first called `a.yml`."""
    files = [(f"{chr(97 + number)}.yml", text) for number, text in enumerate(texts)]
    return load(Source(files, folder, variables or {}), "s")


def service(fields: str, rest: str = "", folder: Path = Path("/srv")) -> Json:
    """The specification of a service with these lines besides its image."""
    lines = "\n".join(f"    {line}" for line in fields.strip("\n").splitlines())
    return stack(f"services:\n  web:\n    image: i\n{lines}\n{rest}", folder=folder).services[0].spec


def container(fields: str, rest: str = "", folder: Path = Path("/srv")) -> Json:
    """Its container."""
    found: Json = service(fields, rest, folder)["TaskTemplate"]["ContainerSpec"]
    return found
