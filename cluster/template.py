"""Go templates in env, hostname and mounts: the fields that SwarmKit offers, and no more of the language.

`{{.Service.Name}}`, `{{.Service.ID}}`, `{{.Service.Labels}}`, `{{index .Service.Labels "key"}}`,
`{{.Node.ID}}`, `{{.Node.Hostname}}`, `{{.Node.Platform.OS}}`, `{{.Node.Platform.Architecture}}`,
`{{.Task.ID}}`, `{{.Task.Name}}`, `{{.Task.Slot}}` (the node's id for a global service).
"""

import re
from collections.abc import Mapping

from cluster.errors import InvalidArgument

FIELDS = (
    ".Service.ID",
    ".Service.Name",
    ".Service.Labels",
    ".Node.ID",
    ".Node.Hostname",
    ".Node.Platform.OS",
    ".Node.Platform.Architecture",
    ".Task.ID",
    ".Task.Name",
    ".Task.Slot",
)

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_INDEX = re.compile(r'index\s+\.Service\.Labels\s+"([^"]*)"')
_OFFERED = f'{", ".join(FIELDS)}, or index .Service.Labels "key"'


def expand(text: str, fields: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """The text with its templates filled in. Raises InvalidArgument for one that is not offered."""
    if "{{" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        action = match[1]
        if action in fields:
            return fields[action]
        indexed = _INDEX.fullmatch(action)
        if indexed:
            return labels.get(indexed[1], "")
        raise InvalidArgument(f"invalid template {match[0]}: use one of {_OFFERED}")

    if "{{" in _ACTION.sub("", text):
        raise InvalidArgument(f"invalid template {text!r}: an action is not closed with }}}}")
    return _ACTION.sub(value, text)


def check(text: str) -> None:
    """Raise InvalidArgument unless `expand` can fill the text in."""
    expand(text, dict.fromkeys(FIELDS, ""), {})
