"""`docker run --link` on the default bridge: another container's address under an alias, and its variables.

Networks that users make have names of their own; there a link is an alias (worker.endpoints).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cluster.errors import Conflict, InvalidArgument, NotFound
from netplane.model import Sandbox
from worker.containers.lookup import Found
from worker.runtime.model import ContainerConfig

_PRIVATE = ("HOME", "PATH")


@dataclass(frozen=True)
class Link:
    """Another container, by name, and what it is called here."""

    target: str
    alias: str


def parse(text: str) -> Link:
    """`NAME`, `NAME:ALIAS`, or as they are kept: `/NAME:/SELF/ALIAS`."""
    target, _, alias = text.partition(":")
    target = target.removeprefix("/")
    alias = alias.rpartition("/")[2] or target
    if not target:
        raise InvalidArgument(f"bad format for links: {text}")
    return Link(target, alias)


def kept(texts: Sequence[str], name: str, find: Callable[[str], Found]) -> list[str]:
    """Links as inspect shows them. InvalidArgument for a container that does not exist."""
    found = []
    for text in texts:
        link = parse(text)
        try:
            other, _ = find(link.target)
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {link.target}: {error}") from error
        found.append(f"/{other.name}:/{name}/{link.alias}")
    return found


def resolve(
    texts: Sequence[str], name: str, find: Callable[[str], Found], sandboxes: Callable[[str], Sandbox | None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entries of the hosts file (`name:address`) and variables, for a start. Conflict if one does not run."""
    hosts: list[str] = []
    variables: list[str] = []
    for text in texts:
        link = parse(text)
        other, state = find(link.target)
        sandbox = sandboxes(other.id)
        if not state.running or sandbox is None or not sandbox.addresses:
            raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{name}/{link.alias}")
        address = next(iter(sandbox.addresses.values())).partition("/")[0]
        hosts += [f"{each}:{address}" for each in dict.fromkeys((link.alias, other.name, other.id[:12]))]
        variables += _variables(other, name, link.alias)
    return tuple(hosts), tuple(variables)


def _variables(other: ContainerConfig, name: str, alias: str) -> Iterator[str]:
    prefix = alias.replace("-", "_").upper()
    yield f"{prefix}_NAME=/{name}/{alias}"
    for text in other.env:
        variable, _, value = text.partition("=")
        if variable not in _PRIVATE:
            yield f"{prefix}_ENV_{variable}={value}"
