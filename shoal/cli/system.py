"""`shoal info`, `shoal version`, `shoal ps`, `shoal logs`."""

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any

import click

from cluster.errors import ShoalError
from shoal.cli.client import API_VERSION, Json
from shoal.cli.logs import log_options, stream_container_logs
from shoal.cli.output import ago, print_json, size, table
from shoal.cli.session import ID_WIDTH, Session, format_option, pass_session

_COMMAND_WIDTH = 20


def client_version() -> str:
    """The version of this installation; `unknown` when it runs from a checkout that is not installed."""
    try:
        return package_version("shoal")
    except PackageNotFoundError:
        return "unknown"


@click.command()
@format_option
@pass_session
def info(session: Session, form: str) -> None:
    """Show the engine and its place in the cluster."""
    found = session.engine.get("/info")
    if form == "json":
        print_json(found)
        return
    swarm = found.get("Swarm") or {}
    rows = [
        ("Name", found.get("Name", "")),
        ("Server version", found.get("ServerVersion", "")),
        ("Kernel", f"{found.get('KernelVersion', '')} ({found.get('Architecture', '')})"),
        ("System", found.get("OperatingSystem", "")),
        ("CPUs, memory", f"{found.get('NCPU', 0)}, {size(found.get('MemTotal', 0))}"),
        ("Cgroups", f"v{found.get('CgroupVersion', '?')} ({found.get('CgroupDriver', '')})"),
        ("Data", found.get("DockerRootDir", "")),
        ("Containers", f"{found.get('ContainersRunning', 0)} running of {found.get('Containers', 0)}"),
        ("Images", str(found.get("Images", 0))),
        ("Swarm", swarm.get("LocalNodeState", "inactive")),
    ]
    if swarm.get("LocalNodeState") == "active":
        rows.append(("Node", f"{swarm.get('NodeID', '')} at {swarm.get('NodeAddr', '')}"))
        rows.append(("Manager", "yes" if swarm.get("ControlAvailable") else "no"))
        if swarm.get("ControlAvailable"):
            rows.append(("Nodes, managers", f"{swarm.get('Nodes', 0)}, {swarm.get('Managers', 0)}"))
    if swarm.get("Error"):
        rows.append(("Swarm error", swarm["Error"]))
    for name, value in rows:
        click.echo(f"{name + ':':<18}{value}")
    for warning in found.get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)


@click.command()
@format_option
@pass_session
def version(session: Session, form: str) -> None:
    """Show the versions of this command and of the engine."""
    client: Json = {"Version": client_version(), "ApiVersion": ".".join(str(part) for part in API_VERSION)}
    try:
        server, problem = session.engine.get("/version"), None
    except ShoalError as error:
        server, problem = None, error
    if form == "json":
        print_json({"Client": client, "Server": server})
    else:
        click.echo(f"Client: {client['Version']} (API {client['ApiVersion']})")
        if server:
            click.echo(
                f"Server: {server['Version']} (API {server['ApiVersion']}, from {server['MinAPIVersion']})"
            )
    if problem:
        raise problem


@click.command()
@format_option
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that don't run.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@pass_session
def ps(session: Session, form: str, everything: bool, quiet: bool) -> None:
    """List the containers on this node."""
    containers = session.engine.get("/containers/json", all=everything)
    if quiet:
        for found in containers:
            click.echo(found["Id"][:ID_WIDTH])
    elif form == "json":
        print_json(containers)
    else:
        header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"]
        table(header, [_container_row(found) for found in containers])


def _container_row(found: Json) -> list[str]:
    command = found.get("Command", "")
    if len(command) > _COMMAND_WIDTH:
        command = command[: _COMMAND_WIDTH - 1] + "…"
    names = ", ".join(name.removeprefix("/") for name in found.get("Names") or ())
    created = ago(datetime.fromtimestamp(found["Created"], UTC))
    image = found["Image"].partition("@")[0]
    return [found["Id"][:ID_WIDTH], image, f'"{command}"', created, found.get("Status", ""), names]


@click.command()
@click.argument("container")
@log_options
@pass_session
def logs(session: Session, /, container: str, **options: Any) -> None:
    """Show what CONTAINER prints."""
    stream_container_logs(session, container, options)
