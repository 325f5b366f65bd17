"""`shoal plan …`: what a change would do; nothing changes."""

import copy

import click

from shoal.cli.planning import show_stack
from shoal.cli.service import service
from shoal.cli.session import Session, format_option, pass_session
from shoal.cli.stack import files_option, read_stack

_PLANNED = ("create", "update", "scale", "rm")


@click.group()
def plan() -> None:
    """What a change would do: what starts, stops, moves, or fits nowhere. Nothing changes."""


@plan.group(name="service")
@pass_session
def plan_service(session: Session) -> None:
    """What a command of `shoal service` would do."""
    session.planning = True


for _name in _PLANNED:
    plan_service.add_command(copy.copy(service.commands[_name]))


@plan.command(name="stack")
@click.argument("arguments", metavar="[FILE…] NAME", nargs=-1, required=True)
@files_option
@click.option("--prune", is_flag=True, help="As if services that the files no longer have were removed.")
@format_option
@pass_session
def plan_stack(
    session: Session, arguments: tuple[str, ...], files: tuple[str, ...], prune: bool, form: str
) -> None:
    """What `shoal stack deploy` would do."""
    show_stack(session, read_stack(files, arguments), prune, form)
