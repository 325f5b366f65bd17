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

_INDEX = re.compile(r'index\s+\.Service\.Labels\s+"([^"]*)"')
_OFFERED = f'{", ".join(FIELDS)}, or index .Service.Labels "key"'


def expand(text: str, fields: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """The text with its templates filled in. Raises InvalidArgument for one that is not offered."""
    filled: list[str] = []
    position = 0
    while (start := text.find("{{", position)) >= 0:
        end = text.find("}}", start + 2)
        if end < 0:
            raise InvalidArgument(
                f"invalid template {text[start:][:200]!r}: an action is not closed with }}}}"
            )
        filled += text[position:start], _value(text[start + 2 : end], fields, labels)
        position = end + 2
    return "".join((*filled, text[position:]))


def _value(action: str, fields: Mapping[str, str], labels: Mapping[str, str]) -> str:
    name = action.removeprefix("-").removesuffix("-").strip()
    if name in fields:
        return fields[name]
    if indexed := _INDEX.fullmatch(name):
        return labels.get(indexed[1], "")
    raise InvalidArgument(f"invalid template {{{{{action[:200]}}}}}: use one of {_OFFERED}")


def check(text: str) -> None:
    """Raise InvalidArgument unless `expand` can fill the text in."""
    expand(text, dict.fromkeys(FIELDS, ""), {})
