"""Generic resources: what an operator says that a node has, such as GPUs, by name or by number.

`gpu=UUID1` names one resource of the kind `gpu`, given several times one each; `ssd=4` is a number of them.
"""

from collections.abc import Iterable

from cluster.errors import InvalidArgument
from cluster.spec import DiscreteResource, GenericResource, NamedResource

_MAX = (1 << 63) - 1


def parse(texts: Iterable[str]) -> list[GenericResource]:
    """A node's resources, as dockerd's `--node-generic-resource` takes them. Raises InvalidArgument."""
    values: dict[str, list[str]] = {}
    for text in texts:
        kind, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not kind or not value or "=" in value:
            raise InvalidArgument(
                f"could not parse GenericResource: incorrect term {text}, missing '=' or malformed "
                "expression: write kind=number, or kind=name once for each"
            )
        values.setdefault(kind, []).append(value)
    resources: list[GenericResource] = []
    for kind, given in values.items():
        numbers = [value for value in given if _is_number(value)]
        if not numbers:
            named = dict.fromkeys(given)
            resources += [
                GenericResource(named_resource_spec=NamedResource(kind=kind, value=name)) for name in named
            ]
        elif len(given) == 1:
            resources.append(_discrete(kind, int(given[0])))
        else:
            raise InvalidArgument(
                "could not parse GenericResource: mixed discrete and named resources in expression "
                f"'{kind}={','.join(given)}'"
            )
    return resources


def _discrete(kind: str, amount: int) -> GenericResource:
    if not 0 <= amount <= _MAX:
        raise InvalidArgument(f"could not parse GenericResource: cannot ask for negative resource {kind}")
    return GenericResource(discrete_resource_spec=DiscreteResource(kind=kind, value=amount))


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").removeprefix("+").isdigit()


def environment(resources: Iterable[GenericResource]) -> dict[str, str]:
    """The variables by which a task learns what it was given: `DOCKER_RESOURCE_GPU=UUID1,UUID2`."""
    values: dict[str, list[str]] = {}
    for resource in resources:
        if (named := resource.named_resource_spec) is not None:
            values.setdefault(named.kind, []).append(named.value)
        elif (discrete := resource.discrete_resource_spec) is not None:
            values.setdefault(discrete.kind, []).append(str(discrete.value))
    return {f"DOCKER_RESOURCE_{kind.upper()}": ",".join(given) for kind, given in values.items()}
