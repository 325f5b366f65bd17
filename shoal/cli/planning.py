"""Asking what a change would do, and showing the answer."""

import click

from shoal.cli.client import Json
from shoal.cli.output import print_json
from shoal.cli.session import Session
from shoal.stack.deploy import NEVER, Deployment, Options
from shoal.stack.stack import Stack
from shoal.stack.state import Present, name_of


def show_stack(session: Session, found: Stack, prune: bool, form: str) -> None:
    """Print what deploying the stack would do."""
    deployment = Deployment(session.engine, found, Options(resolve=NEVER, tell=lambda words: None))
    proposal = deployment.proposal()
    if prune:
        kept = {spec["Name"] for spec in proposal["Services"]}
        present = Present.of(session.engine, found.namespace).services
        proposal["Remove"] = [there["ID"] for there in present if name_of(there) not in kept]
    show(session, proposal, form)


def show(session: Session, proposal: Json, form: str = "table") -> None:
    """Print what a proposal would do, in sentences or as JSON."""
    answer = session.engine.post("/shoal/plan", proposal)
    if form == "json":
        print_json(answer)
    else:
        for sentence in answer["Sentences"]:
            click.echo(sentence)
