"""`shoal swarm ca`: the root certificate, shown or replaced."""

import time
from pathlib import Path
from typing import Any

import click

from cluster.errors import InvalidArgument
from shoal.cli.client import Engine, Json
from shoal.cli.output import say
from shoal.cli.session import Session, pass_session
from shoal.cli.swarm_settings import ca_flags, text_of, with_settings

_POLL_SECONDS = 0.2
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--rotate", is_flag=True, help="Replace the root CA: by a new one, or by the one given.")
@click.option("--ca-cert", type=_FILE, help="The new root's certificate (PEM).")
@click.option("--ca-key", type=_FILE, help="The new root's key (PEM, without a passphrase).")
@click.option("-d", "--detach", is_flag=True, help="Don't wait until all nodes have new certificates.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing meanwhile.")
@ca_flags
@pass_session
def ca(
    session: Session,
    /,
    rotate: bool,
    ca_cert: Path | None,
    ca_key: Path | None,
    detach: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Show the root certificate, or replace it."""
    found = session.engine.get("/swarm")
    if not rotate:
        if ca_cert or ca_key or detach or any(flags.values()):
            raise InvalidArgument("these options are about replacing the root CA: add --rotate")
        click.echo(found["TLSInfo"]["TrustRoot"], nl=False)
        return
    spec = with_settings(found["Spec"], flags)
    config = spec.setdefault("CAConfig", {})
    for field, file in (("SigningCACert", ca_cert), ("SigningCAKey", ca_key)):
        config.pop(field, None)
        if file is not None:
            config[field] = text_of(file)
    if ca_cert is None and ca_key is None:
        config["ForceRotate"] = config.get("ForceRotate", 0) + 1
    session.engine.post("/swarm/update", spec, version=found["Version"]["Index"])
    if not detach:
        click.echo(_wait(session.engine, quiet)["TLSInfo"]["TrustRoot"], nl=False)


def _wait(engine: Engine, quiet: bool) -> Json:
    """Until every node has a certificate of the new root, and trusts it alone."""
    told = ""
    while True:
        found: Json = engine.get("/swarm")
        nodes = engine.get("/nodes")
        waiting = [
            node["Description"]["Hostname"]
            for node in nodes
            if node["Description"].get("TLSInfo") != found["TLSInfo"]
        ]
        if not waiting and not found["RootRotationInProgress"]:
            return found
        news = f"{len(nodes) - len(waiting)} of {len(nodes)} nodes; waiting for {', '.join(sorted(waiting))}"
        if waiting and news != told and not quiet:
            say(news)
            told = news
        time.sleep(_POLL_SECONDS)
