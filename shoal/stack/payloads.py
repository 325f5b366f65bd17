"""Secrets and configs of a Compose file: what they hold, and how services refer to them."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.cli.client import Json
from shoal.stack import reading
from shoal.stack.mounts import external
from shoal.stack.namespace import Namespace
from shoal.stack.node import ComposeError, Node

_FIELDS = (
    "file", "content", "environment", "external", "name", "labels", "driver", "driver_opts",
    "template_driver",
)  # fmt: skip
_REFERENCE = ("source", "target", "uid", "gid", "mode")
_MODE = 0o444


@dataclass(frozen=True)
class Payload:
    """A secret or config of the stack. `spec` is None when it must exist already."""

    name: str
    node: Node
    spec: Json | None


class Payloads:
    """All secrets, or all configs, of a file. `kind` is `secret` or `config`."""

    def __init__(
        self, kind: str, namespace: Namespace, node: Node, folder: Path, variables: Mapping[str, str]
    ) -> None:
        self._kind = kind
        self._namespace = namespace
        self._folder = folder
        self._variables = variables
        self.all = {key: self._payload(key, item) for key, item in reading.entries(node).items()}

    def references(self, node: Node | None) -> list[Json]:
        """What a service uses, with the object's name where its id is to be."""
        prefix = self._kind.capitalize()
        found = []
        for item in reading.items(node) if node is not None else ():
            key, file = self._reference(item)
            if key not in self.all:
                raise ComposeError(item, f"undefined {self._kind} {key!r}: define it under {self._kind}s")
            found.append({"File": file, f"{prefix}ID": "", f"{prefix}Name": self.all[key].name})
        return sorted(found, key=lambda reference: str(reference[f"{prefix}Name"]))

    def _reference(self, item: Node) -> tuple[str, Json]:
        if not isinstance(item.value, dict):
            key = reading.text(item)
            return key, {"Name": key, "UID": "0", "GID": "0", "Mode": _MODE}
        given = reading.fields(item, _REFERENCE)
        if "source" not in given:
            raise ComposeError(item, f"source is missing: the {self._kind}'s name under {self._kind}s")
        key = reading.text(given["source"])
        return key, {
            "Name": reading.text(given["target"]) if "target" in given else key,
            "UID": reading.word(given["uid"]) if "uid" in given else "0",
            "GID": reading.word(given["gid"]) if "gid" in given else "0",
            "Mode": reading.integer(given["mode"]) if "mode" in given else _MODE,
        }

    def _payload(self, key: str, node: Node) -> Payload:
        given = reading.fields(node, _FIELDS)
        outside, name = external(node, given, key)
        if outside:
            return Payload(name, node, None)
        labels = reading.labels(given["labels"]) if "labels" in given else {}
        name = name or self._namespace.scope(key)
        spec: Json = {"Name": name, "Labels": self._namespace.labels(labels)}
        if "template_driver" in given:
            spec["Templating"] = {"Name": reading.text(given["template_driver"])}
        if "driver" in given:
            spec["Driver"] = {"Name": reading.text(given["driver"])}
            if "driver_opts" in given:
                spec["Driver"]["Options"] = reading.labels(given["driver_opts"])
            return Payload(name, node, spec)
        spec["Data"] = base64.b64encode(self._data(node, given)).decode()
        return Payload(name, node, spec)

    def _data(self, node: Node, given: Mapping[str, Node]) -> bytes:
        sources = [source for source in ("file", "content", "environment") if source in given]
        if len(sources) != 1:
            raise ComposeError(node, f"a {self._kind} needs one of file, content, environment or external")
        source = given[sources[0]]
        text = reading.text(source)
        if sources[0] == "content":
            return text.encode(errors="surrogateescape")
        if sources[0] == "environment":
            if text not in self._variables:
                raise ComposeError(source, f"the variable {text} is not set")
            return self._variables[text].encode(errors="surrogateescape")
        path = os.path.normpath(os.path.join(self._folder, os.path.expanduser(text)))
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise ComposeError(source, f"can't read {path}: {error.strerror}") from error
