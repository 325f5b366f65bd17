"""Go's text/template as far as Swarm's users need it: in env, hostname, mounts, secrets and configs.

Fields: `.Service.ID`, `.Service.Name`, `.Service.Labels`, `.Node.ID`, `.Node.Hostname`, `.Node.Platform.OS`,
`.Node.Platform.Architecture`, `.Task.ID`, `.Task.Name`, `.Task.Slot` (the node's id for a global service).
Of the language: pipelines, variables, `if`, `with`, `range`, comments, trimming, and the functions `and or`
`not len index slice eq ne lt le gt ge print printf println join`. Not `define`, `template` and `block`.
Secrets and configs have `secret`, `config` and `env` besides. As in SwarmKit a missing key is an error, but
not for `index`.

Language: https://pkg.go.dev/text/template; fields: SwarmKit's template package.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.template.evaluate import Evaluator
from cluster.template.functions import BUILTINS, Function
from cluster.template.lexer import TemplateError
from cluster.template.parser import parse
from cluster.template.values import Record

__all__ = [
    "PAYLOAD_FUNCTIONS",
    "Fields",
    "Function",
    "Record",
    "TemplateError",
    "check",
    "check_payload",
    "expand",
    "render",
]

PAYLOAD_FUNCTIONS = ("secret", "config", "env")
"""What templates in secrets and configs may call besides."""


@dataclass(frozen=True)
class Fields:
    """What a template can name. `slot` is the node's id for a task of a global service."""

    service_id: str = ""
    service_name: str = ""
    service_labels: Mapping[str, str] | None = None
    node_id: str = ""
    node_hostname: str = ""
    os: str = ""
    architecture: str = ""
    task_id: str = ""
    task_name: str = ""
    slot: str = ""

    def record(self) -> Record:
        """As a template sees it."""
        platform = Record(Architecture=self.architecture, OS=self.os)
        return Record(
            Service=Record(
                ID=self.service_id, Name=self.service_name, Labels=dict(self.service_labels or {})
            ),
            Node=Record(ID=self.node_id, Hostname=self.node_hostname, Platform=platform),
            Task=Record(ID=self.task_id, Name=self.task_name, Slot=self.slot),
        )


def expand(text: str, fields: Fields, functions: Mapping[str, Function] | None = None) -> str:
    """The text with its templates filled in. Raises TemplateError."""
    return render(text, fields.record(), functions) if "{{" in text else text


def render(text: str, record: Record, functions: Mapping[str, Function] | None = None) -> str:
    """The text with templates about anything filled in. Raises TemplateError."""
    if "{{" not in text:
        return text
    given = functions or {}
    tree = parse(text, lambda name: name in BUILTINS or name in given)
    return Evaluator(record, given).fill(tree)


def check(text: str, fields: Fields) -> None:
    """Raise TemplateError unless the text can be filled in, with values such as these."""
    expand(text, fields)


def check_payload(text: str) -> None:
    """Raise TemplateError unless a secret's or config's template can be read."""
    parse(text, lambda name: name in BUILTINS or name in PAYLOAD_FUNCTIONS)
