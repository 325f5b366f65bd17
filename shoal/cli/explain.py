"""`shoal service explain` and `shoal task explain`: why things are as they are, in sentences."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import click

from shoal.cli.client import Json
from shoal.cli.output import print_json
from shoal.cli.session import Session, pass_session

_WIDTH = 100
_SECTIONS = (
    ("Why", "why"),
    ("Placement", "where"),
    ("History", "before"),
    ("Next", "next"),
    ("Advice", "do"),
)


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="All that is known, as JSON.")(command)


@click.command(name="explain")
@click.argument("name", metavar="SERVICE")
@_json_option
@pass_session
def service_explain(session: Session, name: str, as_json: bool) -> None:
    """Say why SERVICE is as it is, what happens next, and what to do."""
    told = session.engine.get(f"/shoal/services/{name}/explain")
    if as_json:
        print_json(told)
        return
    click.echo(told["Summary"])
    _say(told, indent="  ")
    for task in told["Tasks"]:
        click.echo(f"\n{task['Summary']} ({task['ID']})")
        _say({key: value for key, value in task.items() if key != "Advice"}, indent="  ")


@click.group()
def task() -> None:
    """Tasks: single runs of a service's container."""


@task.command()
@click.argument("name", metavar="TASK")
@_json_option
@pass_session
def explain(session: Session, name: str, as_json: bool) -> None:
    """Say why TASK waits, runs where it does or ended, and what happens next.

    TASK is an id, or a name as `docker service ps` shows it: web.3 is the latest task in that slot.
    """
    told = session.engine.get(f"/shoal/tasks/{name}/explain")
    if as_json:
        print_json(told)
        return
    click.echo(f"{told['Summary']} ({told['ID']})")
    _say(told, indent="  ")


def _say(told: Json, indent: str) -> None:
    for key, label in _SECTIONS:
        for number, words in enumerate(_sentences(told, key)):
            head = f"{indent}{(label + ':') if not number else '':8}"
            click.echo(textwrap.fill(words, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)))


def _sentences(told: Json, key: str) -> Sequence[str]:
    found: Sequence[str] = told.get(key) or ()
    return found
