"""Several Compose files over one another, as the Compose specification merges them."""

from collections.abc import Callable, Mapping

from shoal.stack.node import ComposeError, Node

_PAIRS = frozenset({"environment", "labels", "sysctls", "extra_hosts", "driver_opts", "options"})
"""Written as a mapping or as a list of `NAME=VALUE`."""
_NAMES = frozenset({"networks", "depends_on"})
"""Written as a mapping or as a list of names."""
_ONE_OR_MORE = frozenset({"dns", "dns_search", "dns_opt", "tmpfs", "env_file"})
"""Written as a text or as a list."""
_REPLACED = frozenset({"command", "entrypoint", "test"})


def merge(base: Node, over: Node) -> Node:
    """`over` wins; lists grow; mappings merge key by key. Raises ComposeError where the kinds differ."""
    return _merge(base, over, "", in_service=False)


def _merge(base: Node, over: Node, key: str, *, in_service: bool) -> Node:
    if over.value is None:
        return base
    if base.value is None or (in_service and key in _REPLACED):
        return over
    if key in _PAIRS or (in_service and key in _NAMES):
        base, over = as_mapping(base), as_mapping(over)
    if in_service and key in _ONE_OR_MORE:
        base, over = _as_list(base), _as_list(over)
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        if key == "logging" and _driver(base) != _driver(over):
            return over
        inside = in_service or base.path.startswith("services.")
        merged = dict(base.value)
        for name, item in over.value.items():
            merged[name] = _merge(merged[name], item, name, in_service=inside) if name in merged else item
        return over.of(merged)
    if isinstance(base.value, list) and isinstance(over.value, list):
        return over.of(_grown(base.value, over.value, _KEYS.get(key, _itself)))
    if isinstance(base.value, list | dict) or isinstance(over.value, list | dict):
        raise ComposeError(over, f"this is {over.kind}, but {base.file}:{base.line} has {base.kind} here")
    return over


def as_mapping(node: Node) -> Node:
    """A list of `NAME=VALUE` or of names as the mapping that it stands for; other nodes as they are."""
    if not isinstance(node.value, list):
        return node
    found: dict[str, Node] = {}
    for item in node.value:
        if not isinstance(item.value, str):
            raise ComposeError(item, f"this is {item.kind}; write NAME or NAME=VALUE")
        name, equals, value = item.value.partition("=")
        if not equals and node.path.endswith("extra_hosts"):
            name, equals, value = item.value.partition(":")
        found[name] = item.of(value if equals else None)
    return node.of(found)


def _as_list(node: Node) -> Node:
    return node.of([node]) if isinstance(node.value, str) else node


def _driver(node: Node) -> object:
    return node.items["driver"].value if "driver" in node.items else "json-file"


def _grown(base: list[Node], over: list[Node], key: Callable[[Node], object]) -> list[Node]:
    merged = {key(item): item for item in base}
    merged.update({key(item): item for item in over})
    return list(merged.values())


def plain(node: Node) -> object:
    """The tree as plain values."""
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    return node.value


def _itself(node: Node) -> object:
    return repr(plain(node))


def _mount_target(node: Node) -> object:
    if isinstance(node.value, str):
        parts = node.value.split(":")
        return parts[1] if len(parts) > 1 else parts[0]
    return node.items["target"].value if "target" in node.items else _itself(node)


def _payload_target(node: Node) -> object:
    if isinstance(node.value, str):
        return node.value
    items: Mapping[str, Node] = node.items
    named = items.get("target") or items.get("source")
    return named.value if named is not None and isinstance(named.value, str) else _itself(node)


_KEYS: dict[str, Callable[[Node], object]] = {
    "volumes": _mount_target,
    "secrets": _payload_target,
    "configs": _payload_target,
}
