"""`shoal swarm …`"""

import sys
from typing import IO, Any

import click

from cluster.errors import InvalidArgument, Unavailable
from shoal.cli.client import Json
from shoal.cli.output import say
from shoal.cli.session import Session, pass_session
from shoal.cli.swarm_ca import ca
from shoal.cli.swarm_settings import settings_flags, with_settings

_PORT = 2377


@click.group()
def swarm() -> None:
    """The cluster itself."""


swarm.add_command(ca)


@swarm.command()
@click.option("--advertise-addr", default="", help="The address that other nodes reach this one at.")
@click.option(
    "--listen-addr", default=f"0.0.0.0:{_PORT}", show_default=True, help="Where to listen for nodes."
)
@click.option("--data-path-addr", default="", help="The address for container traffic, if another.")
@click.option(
    "--default-addr-pool", "pools", multiple=True, help="A subnet to take networks from; repeatable."
)
@click.option(
    "--force-new-cluster", is_flag=True, help="Make one manager of a lost majority a cluster again."
)
@click.option(
    "--default-addr-pool-mask-length",
    "mask_length",
    type=int,
    default=0,
    help="The size of those networks: 24.",
)
@click.option("--data-path-port", type=int, default=0, help="The UDP port of container traffic: 4789.")
@click.option("--autolock", is_flag=True, help="Keep managers locked after a restart, until `swarm unlock`.")
@click.option("--availability", type=click.Choice(["active", "pause", "drain"]), default="active")
@settings_flags
@pass_session
def init(
    session: Session,
    /,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    pools: tuple[str, ...],
    mask_length: int,
    data_path_port: int,
    force_new_cluster: bool,
    autolock: bool,
    availability: str,
    **flags: Any,
) -> None:
    """Make this engine the first manager of a new cluster."""
    body = {
        "ListenAddr": listen_addr,
        "AdvertiseAddr": advertise_addr,
        "DataPathAddr": data_path_addr,
        "ForceNewCluster": force_new_cluster,
        "AutoLockManagers": autolock,
        "Availability": availability,
        "DataPathPort": data_path_port,
        "SubnetSize": mask_length,
        "Spec": with_settings({}, flags),
    }
    if pools:
        body["DefaultAddrPool"] = list(pools)
    node = session.engine.post("/swarm/init", body)
    click.echo(f"Swarm initialized: current node ({node}) is now a manager.")
    _print_join(session, "worker")
    say("`shoal swarm join-token manager` shows how a manager joins.")
    if autolock:
        _print_unlock_key(session)


@swarm.command()
@click.option("--autolock", type=bool, help="Whether managers stay locked after a restart.")
@settings_flags
@pass_session
def update(session: Session, /, autolock: bool | None, **flags: Any) -> None:
    """Change the cluster's settings."""
    found = session.engine.get("/swarm")
    before = _autolock(found)
    spec = with_settings(found["Spec"], flags)
    if autolock is not None:
        spec["EncryptionConfig"] = {"AutoLockManagers": autolock}
    if spec == found["Spec"] and autolock is None:
        raise InvalidArgument("nothing to change: `shoal swarm update --help` shows what can be")
    session.engine.post("/swarm/update", spec, version=found["Version"]["Index"])
    click.echo("Swarm updated.")
    if autolock and not before:
        _print_unlock_key(session)


@swarm.command()
@pass_session
def unlock(session: Session) -> None:
    """Unlock this node's manager; asks for the key, or reads it from a pipe."""
    terminal = sys.stdin.isatty()
    key = click.prompt("Unlock key", hide_input=True, err=True) if terminal else sys.stdin.readline()
    session.engine.post("/swarm/unlock", {"UnlockKey": key.strip()})


@swarm.command(name="unlock-key")
@click.option("--rotate", is_flag=True, help="Make a new key; keep the old one until all managers have it.")
@click.option("-q", "--quiet", is_flag=True, help="Only the key.")
@pass_session
def unlock_key(session: Session, rotate: bool, quiet: bool) -> None:
    """Show the key that unlocks managers."""
    if rotate:
        found = session.engine.get("/swarm")
        if not _autolock(found):
            raise InvalidArgument("autolock is off: `shoal swarm update --autolock true` turns it on")
        query = {"rotateManagerUnlockKey": True, "version": found["Version"]["Index"]}
        session.engine.post("/swarm/update", found["Spec"], **query)
    if quiet:
        click.echo(_unlock_key(session))
    else:
        _print_unlock_key(session)


@swarm.command()
@click.argument("address")
@click.option(
    "--token", help="From `shoal swarm join-token`. Others on this machine can see it: --token-file."
)
@click.option(
    "--token-file", type=click.File(), help="The token is in this file; - reads it from standard input."
)
@click.option("--advertise-addr", default="", help="The address that other nodes reach this one at.")
@click.option(
    "--listen-addr", default=f"0.0.0.0:{_PORT}", show_default=True, help="Where to listen for nodes."
)
@click.option("--data-path-addr", default="", help="The address for container traffic, if another.")
@click.option("--availability", type=click.Choice(["active", "pause", "drain"]), default="active")
@pass_session
def join(
    session: Session,
    address: str,
    token: str | None,
    token_file: IO[str] | None,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    availability: str,
) -> None:
    """Join the cluster that the manager at ADDRESS belongs to.

    A node that was off until its certificate expired comes back in the same way, as the node it was.
    """
    if (token is None) == (token_file is None):
        raise InvalidArgument("give the join token with --token or with --token-file")
    if token_file is not None:
        token = token_file.read().strip()
    remote = address if ":" in address else f"{address}:{_PORT}"
    body = {
        "ListenAddr": listen_addr,
        "AdvertiseAddr": advertise_addr,
        "DataPathAddr": data_path_addr,
        "RemoteAddrs": [remote],
        "JoinToken": token,
        "Availability": availability,
    }
    session.engine.post("/swarm/join", body)
    info = session.engine.get("/info")["Swarm"]
    role = "manager" if info.get("ControlAvailable") else "worker"
    click.echo(f"This node joined a swarm as a {role}.")


@swarm.command()
@click.option("-f", "--force", is_flag=True, help="Even if the cluster may lose its majority.")
@pass_session
def leave(session: Session, force: bool) -> None:
    """Leave the cluster."""
    session.engine.post("/swarm/leave", force=force)
    click.echo("Node left the swarm.")


@swarm.command(name="join-token")
@click.argument("role", type=click.Choice(["worker", "manager"]))
@click.option("--rotate", is_flag=True, help="Make a new token; the old one is worth nothing any more.")
@click.option("-q", "--quiet", is_flag=True, help="Only the token.")
@pass_session
def join_token(session: Session, role: str, rotate: bool, quiet: bool) -> None:
    """Show how a ROLE (worker or manager) joins."""
    if rotate:
        found = session.engine.get("/swarm")
        query = {f"rotate{role.capitalize()}Token": True, "version": found["Version"]["Index"]}
        session.engine.post("/swarm/update", found["Spec"], **query)
    if quiet:
        click.echo(session.engine.get("/swarm")["JoinTokens"][role.capitalize()])
    else:
        _print_join(session, role)


def _autolock(swarm: Json) -> bool:
    return bool(swarm["Spec"].get("EncryptionConfig", {}).get("AutoLockManagers"))


def _unlock_key(session: Session) -> str:
    key: str = session.engine.get("/swarm/unlockkey")["UnlockKey"]
    if not key:
        raise InvalidArgument("autolock is off, so there is no unlock key")
    return key


def _print_unlock_key(session: Session) -> None:
    click.echo(
        f"To unlock a manager after it restarts, run `shoal swarm unlock` there and give this key:\n\n"
        f"    {_unlock_key(session)}\n\n"
        "Keep it in a safe place: without it no restarted manager can be unlocked."
    )


def _print_join(session: Session, role: str) -> None:
    token = session.engine.get("/swarm")["JoinTokens"][role.capitalize()]
    managers = session.engine.get("/info")["Swarm"].get("RemoteManagers") or []
    if not managers:
        raise Unavailable("this node knows no manager: is it a manager itself? See `shoal info`")
    click.echo(
        f"To add a {role} to this swarm, run there:\n\n"
        f"    shoal swarm join --token {token} {managers[0]['Addr']}\n"
    )
