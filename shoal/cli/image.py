"""`shoal image …`"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from cluster.errors import ShoalError
from shoal.cli.client import Json, json_lines
from shoal.cli.output import ago, print_json, size, table
from shoal.cli.session import ID_WIDTH, Session, format_option, pass_session


@click.group()
def image() -> None:
    """Images on this node."""


@image.command(name="ls")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@pass_session
def list_images(session: Session, form: str, quiet: bool) -> None:
    """List images."""
    images = session.engine.get("/images/json")
    if quiet:
        for found in images:
            click.echo(found["Id"])
    elif form == "json":
        print_json(images)
    else:
        rows = [row for found in images for row in _rows(found)]
        table(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], sorted(rows))


def _rows(found: Json) -> list[list[str]]:
    created = ago(datetime.fromtimestamp(found["Created"], UTC)) if found.get("Created", 0) > 0 else ""
    rest = [found["Id"].removeprefix("sha256:")[:ID_WIDTH], created, size(found.get("Size", 0))]
    names = [tag.rpartition(":") for tag in found.get("RepoTags") or ()]
    return [[repository, tag, *rest] for repository, _, tag in names] or [["<none>", "<none>", *rest]]


def split_reference(reference: str) -> tuple[str, str]:
    """An image's name and its tag or digest; the tag is `latest` unless it is named.

    A colon before a slash belongs to a registry's port.
    """
    name, at, digest = reference.partition("@")
    if at:
        return name, digest
    front, colon, tag = reference.rpartition(":")
    if colon and "/" not in tag:
        return front, tag
    return reference, "latest"


@image.command()
@click.argument("reference", metavar="IMAGE")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_session
def pull(session: Session, reference: str, quiet: bool) -> None:
    """Fetch IMAGE from its registry."""
    name, tag = split_reference(reference)
    query = {"fromImage": name, "tag": tag}
    with (
        session.engine.stream("POST", "/images/create", query=query) as response,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            console=Console(stderr=True, quiet=quiet),
        ) as progress,
    ):
        show_progress(progress, json_lines(response))
    click.echo(reference)


def show_progress(progress: Progress, messages: Iterable[Json]) -> None:
    """Show the messages of a pull, a bar for each layer.

    Raises:
        ShoalError: the engine reports that the pull failed.
    """
    bars: dict[str, TaskID] = {}
    for message in messages:
        if "error" in message:
            raise ShoalError(f"the pull failed: {message['error']}")
        text = f"{message.get('id', '')}: {message.get('status', '')}"
        detail = message.get("progressDetail") or {}
        layer = message.get("id", "")
        if layer and detail.get("total") and layer not in bars:
            bars[layer] = progress.add_task(text, total=detail["total"])
        if layer in bars:
            progress.update(bars[layer], description=text, completed=detail.get("current"))
        elif not layer:
            progress.console.print(message.get("status", ""))


@image.command()
@click.option(
    "-i", "--input", "source", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True
)
@pass_session
def load(session: Session, source: Path) -> None:
    """Load images from a file that `docker save` made."""
    headers = {"Content-Type": "application/x-tar", "Content-Length": str(source.stat().st_size)}
    with (
        source.open("rb") as file,
        session.engine.stream("POST", "/images/load", body=file, headers=headers) as response,
    ):
        for message in json_lines(response):
            if "error" in message:
                raise ShoalError(f"{source} can't be loaded: {message['error']}")
            if "stream" in message:
                click.echo(message["stream"], nl=False)
