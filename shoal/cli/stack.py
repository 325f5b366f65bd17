"""`shoal stack …`"""

import os
import sys
from pathlib import Path

import click
import yaml

from cluster.errors import InvalidArgument, NotFound
from shoal.cli.client import Json
from shoal.cli.credentials import Credentials
from shoal.cli.output import print_json, say, table
from shoal.cli.planning import show_stack
from shoal.cli.progress import wait_for_services
from shoal.cli.service import service_row
from shoal.cli.session import Session, format_option, pass_session
from shoal.cli.tasks import show_tasks
from shoal.stack.deploy import RESOLVE, Deployment, Options
from shoal.stack.merging import plain
from shoal.stack.namespace import NAMESPACE, Namespace
from shoal.stack.remove import remove
from shoal.stack.stack import Stack, load, read_files, tree

files_option = click.option(
    "-c", "--compose-file", "files", multiple=True, help="A Compose file, - for standard input; repeatable."
)


@click.group()
def stack() -> None:
    """Stacks: what a Compose file describes, as a whole."""


def files_and_name(files: tuple[str, ...], arguments: tuple[str, ...]) -> tuple[list[str], str]:
    """`deploy FILE… NAME` and `deploy -c FILE NAME` are the same. Raises InvalidArgument."""
    *named, name = arguments
    paths = [*files, *named]
    if not paths:
        usual = [
            path for path in ("compose.yaml", "compose.yml", "docker-compose.yml") if Path(path).is_file()
        ]
        paths = usual[:1]
    if not paths:
        raise InvalidArgument("no Compose file: write FILE NAME, or -c FILE NAME")
    return paths, name


def read_stack(files: tuple[str, ...], arguments: tuple[str, ...]) -> Stack:
    """The stack that a command line means; its warnings are told."""
    paths, name = files_and_name(files, arguments)
    found = load(read_files(paths, os.environ, sys.stdin.read() if "-" in paths else ""), name)
    for warning in found.warnings:
        say(f"warning: {warning}")
    return found


@stack.command()
@click.argument("arguments", metavar="[FILE…] NAME", nargs=-1, required=True)
@files_option
@click.option("--prune", is_flag=True, help="Remove services that the files no longer have.")
@click.option(
    "--resolve-image",
    "resolve",
    type=click.Choice(RESOLVE),
    default=RESOLVE[0],
    show_default=True,
    help="When to ask the registry for an image's digest.",
)
@click.option(
    "--with-registry-auth", is_flag=True, help="Give the nodes your credentials for the registries."
)
@click.option("--wait", is_flag=True, help="Wait until all services are as asked for.")
@click.option("--timeout", type=click.FloatRange(min=0), default=600.0, show_default=True,
              help="Seconds to wait for each dependency.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would happen, as `shoal plan stack` does.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of what goes well.")
@pass_session
def deploy(
    session: Session,
    arguments: tuple[str, ...],
    files: tuple[str, ...],
    prune: bool,
    resolve: str,
    with_registry_auth: bool,
    wait: bool,
    timeout: float,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Make stack NAME as the Compose files say; what has not changed is left alone.

    Services start in the order of depends_on. The command may be broken off and run again.
    """
    found = read_stack(files, arguments)
    if dry_run:
        show_stack(session, found, prune, "table")
        return
    credentials = Credentials.usual()
    options = Options(
        prune=prune,
        resolve=resolve,
        auth=credentials.header if with_registry_auth else lambda image: "",
        timeout=timeout,
        tell=(lambda words: None) if quiet else click.echo,
    )
    deployment = Deployment(session.engine, found, options)
    deployment.run()
    if wait:
        wait_for_services(session.engine, deployment.services, quiet=quiet)


@stack.command(name="ls")
@format_option
@pass_session
def list_stacks(session: Session, form: str) -> None:
    """List stacks."""
    counts: dict[str, int] = {}
    for found in session.engine.get("/services", filters={"label": [NAMESPACE]}):
        name = found["Spec"]["Labels"][NAMESPACE]
        counts[name] = counts.get(name, 0) + 1
    if form == "json":
        print_json([{"Name": name, "Services": count} for name, count in sorted(counts.items())])
    else:
        table(["NAME", "SERVICES"], [[name, str(count)] for name, count in sorted(counts.items())])


def _services(session: Session, name: str) -> list[Json]:
    filters = Namespace(name).filter
    found = session.engine.get("/services", filters=filters, status=True)
    if not found:
        raise NotFound(f"nothing found in stack: {name}")
    return sorted(found, key=lambda service: str(service["Spec"]["Name"]))


@stack.command()
@click.argument("name", metavar="STACK")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@pass_session
def services(session: Session, name: str, form: str, quiet: bool) -> None:
    """List the services of STACK."""
    found = _services(session, name)
    if quiet:
        for service in found:
            click.echo(service["ID"])
    elif form == "json":
        print_json(found)
    else:
        header = ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]
        table(header, [service_row(service) for service in found])


@stack.command()
@click.argument("name", metavar="STACK")
@format_option
@click.option("--no-trunc", is_flag=True, help="Show errors and images in full.")
@pass_session
def ps(session: Session, name: str, form: str, no_trunc: bool) -> None:
    """Show the tasks of STACK."""
    ids = [str(service["ID"]) for service in _services(session, name)]
    show_tasks(session, {"service": ids}, form, no_trunc)


@stack.command()
@click.argument("names", metavar="STACK…", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Wait until the last task has stopped.")
@pass_session
def rm(session: Session, names: tuple[str, ...], wait: bool) -> None:
    """Remove stacks. Services go before those that they depend on."""
    for name in names:
        remove(session.engine, Namespace(name), click.echo, wait=wait)


@stack.command()
@click.argument("arguments", metavar="[FILE…]", nargs=-1)
@files_option
@click.option("--skip-interpolation", is_flag=True, help="Leave variables as they are written.")
def config(arguments: tuple[str, ...], files: tuple[str, ...], skip_interpolation: bool) -> None:
    """Print the Compose files merged, their variables replaced."""
    paths, _ = files_and_name(files, (*arguments, "stack"))
    source = read_files(paths, os.environ, sys.stdin.read() if "-" in paths else "")
    warnings: list[str] = []
    root = tree(source, warnings, interpolated=not skip_interpolation)
    if not skip_interpolation:
        warnings = list(load(source, "stack").warnings)
    for warning in warnings:
        say(f"warning: {warning}")
    click.echo(yaml.safe_dump(plain(root), allow_unicode=True, sort_keys=True), nl=False)
