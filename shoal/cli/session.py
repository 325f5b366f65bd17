"""What every command of `shoal` shares: which engine to speak to, and how to find what a user names."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from cluster.consistency import CONFIRMED, parse
from cluster.errors import InvalidArgument, NotFound
from shoal.cli.client import Engine, Json, TLSFiles, default_host
from shoal.cli.output import FORMATS, say

ID_WIDTH = 12


@dataclass
class Session:
    """The options that stand before the command's name."""

    host: str | None = None
    tls_verify: bool = False
    tls_folder: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    stale: bool = False
    planning: bool = False
    """Commands that change services only say what that would do (`shoal plan service`)."""
    _names: dict[str, str] = field(default_factory=dict)

    @cached_property
    def engine(self) -> Engine:
        """The engine that `--host` or the environment names.

        Raises:
            InvalidArgument: the address or the TLS files can't be used.
        """
        return Engine(self.host or default_host(), tls=self._tls_files(), stale=self.stale)

    def say_how_old(self) -> None:
        """Remark on what was read without the leader's word, if anything was."""
        if not self.stale or "engine" not in vars(self):
            return
        told = [parse(label) for label in self.engine.labels]
        unconfirmed = [fields for word, fields in told if word != CONFIRMED]
        if not unconfirmed:
            return
        ages = [fields.get("age", "unknown") for fields in unconfirmed]
        age = "unknown" if "unknown" in ages else f"{max(float(age.rstrip('s')) for age in ages):.3f} s"
        lost = any(fields.get("leader") == "none" for fields in unconfirmed)
        remark = f"not confirmed by the leader; age at most: {age}"
        say(remark + ("; this manager knows of no leader at present" if lost else ""))

    def _tls_files(self) -> TLSFiles | None:
        given = (self.tls_ca, self.tls_cert, self.tls_key)
        if not (self.tls_verify or any(given)):
            return None
        usual = TLSFiles.in_folder(self.tls_folder or Path.home() / ".docker")
        return TLSFiles(self.tls_ca or usual.ca, self.tls_cert or usual.cert, self.tls_key or usual.key)

    def service(self, name: str) -> Json:
        """The service of that name or id (or its unambiguous beginning).

        Raises:
            EngineError: there is none.
        """
        found: Json = self.engine.get(f"/services/{name}")
        return found

    def node_id(self, name: str) -> str:
        """The id of the node that a user means; `self` is the engine's own.

        Raises:
            NotFound: there is none.
            InvalidArgument: several bear the name.
        """
        if name == "self":
            own = str(self.engine.get("/info").get("Swarm", {}).get("NodeID", ""))
            if not own:
                raise NotFound("this engine is in no cluster: run `shoal swarm init` or `shoal swarm join`")
            return own
        nodes = self.engine.get("/nodes")
        named = [n for n in nodes if n["Description"]["Hostname"] == name]
        matches = named or [n for n in nodes if n["ID"].startswith(name)]
        if not matches:
            raise NotFound(f"no node {name!r}: `shoal node ls` shows them")
        if len(matches) > 1:
            raise InvalidArgument(f"{name!r} means {len(matches)} nodes: use an id from `shoal node ls`")
        return str(matches[0]["ID"])

    def node_name(self, node: str) -> str:
        """The hostname of the node with that id; the id itself when it is gone."""
        if node not in self._names:
            for listed in self.engine.get("/nodes"):
                self._names[listed["ID"]] = listed["Description"]["Hostname"]
        return self._names.get(node, node)


pass_session = click.make_pass_decorator(Session, ensure=True)


def format_option(command: "Callable[..., Any]") -> "Callable[..., Any]":
    """Adds `--format table|json` to a command that lists."""
    option = click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Output format.",
    )
    return option(command)
