"""`shoal playground …`"""

import json
import os
import shlex
from pathlib import Path
from typing import NoReturn

import click

from shoal.cli.output import FORMATS, say, table
from shoal.playground.boxes import default_daemon
from shoal.playground.layout import (
    CLIENT,
    CLIENT_ADDRESS,
    REGISTRY_NAME,
    USUAL_DIRECTORY,
    Settings,
    default_directory,
)
from shoal.playground.playground import Playground

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help=f"The playground's folder (default SHOAL_PLAYGROUND_DIR, else {USUAL_DIRECTORY}).",
)


def _open(directory: Path | None) -> Playground:
    return Playground(directory or default_directory(), say=say)


@click.group()
def playground() -> None:
    """A cluster of several hosts on this machine, each made of namespaces."""


@playground.command()
@_directory
@click.option("--hosts", default=3, show_default=True, help="How many hosts.")
@click.option(
    "--managers",
    type=int,
    default=None,
    help="How many of them manage; 0 starts plain engines. Default: 3, or all if there are fewer.",
)
@click.option(
    "--shoald-arg", "arguments", multiple=True, help="A further argument for every shoald; repeatable."
)
@click.option(
    "--insecure-registry",
    "registries",
    multiple=True,
    help="A registry to speak plain HTTP with; repeatable.",
)
@click.option("--log-level", default="info", show_default=True, help="How much every shoald logs.")
@click.option(
    "--daemon", default=None, hidden=True, help="Another program in shoald's place, with its arguments."
)
def up(
    directory: Path | None,
    hosts: int,
    managers: int | None,
    arguments: tuple[str, ...],
    registries: tuple[str, ...],
    log_level: str,
    daemon: str | None,
) -> None:
    """Start the hosts and make them a cluster."""
    settings = Settings(
        hosts=hosts,
        managers=min(3, hosts) if managers is None else managers,
        daemon=tuple(shlex.split(daemon)) if daemon else default_daemon(),
        daemon_args=arguments,
        insecure_registries=(f"{REGISTRY_NAME}:5000", *registries),
        log_level=log_level,
    )
    place = _open(directory)
    option = f" --dir {shlex.quote(str(directory))}" if directory else ""
    try:
        place.up(settings)
    except KeyboardInterrupt:
        say(f"interrupted; `shoal playground down{option}` removes what was made")
        raise
    say(f'ready: eval "$(shoal playground env{option} host1)", then docker or shoal; `down` removes it all')


@playground.command()
@_directory
@click.option("--keep", is_flag=True, help="Leave the hosts' state, so that `up` takes it up again.")
def down(directory: Path | None, keep: bool) -> None:
    """Remove the playground, whole or half-made."""
    ended = _open(directory).down(keep=keep)
    say("the playground is gone" if ended else "no playground was running; nothing is left")


@playground.command(name="ls")
@_directory
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def list_hosts(directory: Path | None, form: str) -> None:
    """Show the hosts."""
    states = _open(directory).states()
    if form == "json":
        rows = [
            {
                "Name": s.host.name,
                "State": s.state,
                "Address": s.host.address,
                "PID": s.pid,
                "DockerHost": s.host.docker_host,
                "CutFrom": list(s.cut_from),
            }
            for s in states
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    table(
        ["HOST", "STATE", "ADDRESS", "CUT FROM", "SOCKET"],
        [[s.host.name, s.state, s.host.address, ", ".join(s.cut_from), str(s.host.socket)] for s in states]
        + [[CLIENT, "", CLIENT_ADDRESS, "", ""]],
    )


@playground.command()
@_directory
@click.argument("host")
def env(directory: Path | None, host: str) -> None:
    """Print the line for your shell that points docker and shoal to HOST."""
    click.echo(f"export DOCKER_HOST={shlex.quote(_open(directory).host(host).docker_host)}")


@playground.command(
    name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@_directory
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(directory: Path | None, host: str, command: tuple[str, ...]) -> NoReturn:
    """Run COMMAND in HOST, or in `client`, which is outside the cluster."""
    words = command[1:] if command[0] == "--" else command
    place = _open(directory)
    line, environment = place.command(host, words), place.environment(host)
    place.join_cgroup(host)
    os.execvpe(  # noqa: S606 - the command is the user's, run as the user
        line[0], line, environment
    )


@playground.command()
@_directory
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
def kill(directory: Path | None, hosts: tuple[str, ...]) -> None:
    """Take the power from each HOST, from all at the same moment: they die without a packet."""
    _open(directory).kill(*hosts)
    say(f"{', '.join(hosts)} lost power")


@playground.command()
@_directory
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
def start(directory: Path | None, hosts: tuple[str, ...]) -> None:
    """Give each HOST its power back."""
    _open(directory).start(*hosts)
    say(f"up again: {', '.join(hosts)}")


@playground.command()
@_directory
@click.argument("host")
def restart_daemon(directory: Path | None, host: str) -> None:
    """Stop the daemon of HOST and start it again; its containers go on.

    In a cluster it has 10 s to come back: then its tasks are replaced elsewhere.
    """
    _open(directory).restart_daemon(host)
    say(f"the daemon of {host} has been restarted")


@playground.command()
@_directory
@click.argument("host")
def stop_daemon(directory: Path | None, host: str) -> None:
    """Stop the daemon of HOST; its containers go on.

    In a cluster its node counts as down after 10 s, and its tasks are replaced elsewhere.
    """
    _open(directory).stop_daemon(host)
    say(f"the daemon of {host} is stopped; `restart-daemon` starts it")


@playground.command()
@_directory
@click.argument("host")
@click.option("--from", "others", multiple=True, metavar="HOST", help="Cut only from this one; repeatable.")
@click.option("--one-way", is_flag=True, help="Lose only what HOST sends.")
def partition(directory: Path | None, host: str, others: tuple[str, ...], one_way: bool) -> None:
    """Cut HOST off: packets get lost, and no end is told."""
    cut = _open(directory).partition(host, others, one_way=one_way)
    say(f"{host} {'can not reach' if one_way else 'is cut from'} {', '.join(cut)}; `heal` ends it")


@playground.command()
@_directory
def heal(directory: Path | None) -> None:
    """End all partitions."""
    _open(directory).heal()
    say("all partitions are healed")
