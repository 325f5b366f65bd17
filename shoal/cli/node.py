"""`shoal node …`"""

import click

from cluster.errors import InvalidArgument
from shoal.cli import service_flags
from shoal.cli.client import Json
from shoal.cli.output import print_json, table
from shoal.cli.session import Session, format_option, pass_session
from shoal.cli.tasks import show_tasks

_FILTERS = ("id", "label", "membership", "name", "node.label", "role")


@click.group()
def node() -> None:
    """The machines of the cluster."""


@node.command(name="ls")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option(
    "-f", "--filter", "filters", multiple=True, help=f"Such as role=manager: {', '.join(_FILTERS)}."
)
@pass_session
def list_nodes(session: Session, form: str, quiet: bool, filters: tuple[str, ...]) -> None:
    """List nodes."""
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in _FILTERS:
            raise InvalidArgument(f"--filter {text}: write KEY=VALUE with one of {', '.join(_FILTERS)}")
        wanted.setdefault(key, []).append(value)
    found = session.engine.get("/nodes", filters=wanted or None)
    nodes = sorted(found, key=lambda n: str(n["Description"]["Hostname"]))
    if quiet:
        for found in nodes:
            click.echo(found["ID"])
    elif form == "json":
        print_json(nodes)
    else:
        swarm = session.engine.get("/info").get("Swarm", {})
        own, tls = swarm.get("NodeID", ""), (swarm.get("Cluster") or {}).get("TLSInfo")
        header = [
            "ID",
            "HOSTNAME",
            "STATUS",
            "AVAILABILITY",
            "MANAGER STATUS",
            "TLS STATUS",
            "ENGINE VERSION",
        ]
        table(header, [_row(found, own, tls) for found in nodes])


def _row(found: Json, own: str, tls: Json | None) -> list[str]:
    """`tls`: what a node's certificate and trust should be."""
    held = found["Description"].get("TLSInfo")
    manager = found.get("ManagerStatus") or {}
    standing = "Leader" if manager.get("Leader") else str(manager.get("Reachability", "")).capitalize()
    return [
        found["ID"] + (" *" if found["ID"] == own else "  "),
        found["Description"]["Hostname"],
        found["Status"]["State"].capitalize(),
        found["Spec"]["Availability"].capitalize(),
        standing,
        "Unknown" if not (held and tls) else "Ready" if held == tls else "Needs Rotation",
        (found["Description"].get("Engine") or {}).get("EngineVersion", ""),
    ]


@node.command()
@click.argument("names", metavar="NODE…", nargs=-1, required=True)
@pass_session
def inspect(session: Session, names: tuple[str, ...]) -> None:
    """Show nodes in full, as JSON; `self` is the engine's own."""
    print_json([session.engine.get(f"/nodes/{session.node_id(name)}") for name in names])


def _update(session: Session, name: str, **changes: object) -> Json:
    found: Json = session.engine.get(f"/nodes/{session.node_id(name)}")
    session.engine.post(
        f"/nodes/{found['ID']}/update", found["Spec"] | changes, version=found["Version"]["Index"]
    )
    return found


@node.command()
@click.argument("name", metavar="NODE")
@click.option(
    "--availability", type=click.Choice(["active", "pause", "drain"]), help="Whether it takes tasks."
)
@click.option("--role", type=click.Choice(["worker", "manager"]), help="What it does.")
@click.option("--label-add", multiple=True, help="Add or change a label: NAME=VALUE; repeatable.")
@click.option("--label-rm", multiple=True, help="Take a label away; repeatable.")
@pass_session
def update(
    session: Session,
    name: str,
    availability: str | None,
    role: str | None,
    label_add: tuple[str, ...],
    label_rm: tuple[str, ...],
) -> None:
    """Change NODE."""
    changes: dict[str, object] = {}
    if availability:
        changes["Availability"] = availability
    if role:
        changes["Role"] = role
    if label_add or label_rm:
        found = session.engine.get(f"/nodes/{session.node_id(name)}")
        labels = (found["Spec"].get("Labels") or {}) | service_flags.pairs(label_add, "--label-add")
        changes["Labels"] = {key: value for key, value in labels.items() if key not in label_rm}
    _update(session, name, **changes)
    click.echo(name)


@node.command()
@click.argument("names", metavar="NODE…", nargs=-1, required=True)
@pass_session
def promote(session: Session, names: tuple[str, ...]) -> None:
    """Make nodes managers."""
    for name in names:
        _set_role(session, name, "manager", f"Node {name} promoted to a manager in the swarm.")


@node.command()
@click.argument("names", metavar="NODE…", nargs=-1, required=True)
@pass_session
def demote(session: Session, names: tuple[str, ...]) -> None:
    """Make managers workers."""
    for name in names:
        _set_role(session, name, "worker", f"Manager {name} demoted in the swarm.")


def _set_role(session: Session, name: str, role: str, done: str) -> None:
    found = session.engine.get(f"/nodes/{session.node_id(name)}")
    if found["Spec"]["Role"] == role:
        click.echo(f"Node {name} is already a {role}.")
        return
    _update(session, name, Role=role)
    click.echo(done)


@node.command()
@click.argument("names", metavar="NODE…", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Even if it is not down.")
@pass_session
def rm(session: Session, names: tuple[str, ...], force: bool) -> None:
    """Strike nodes off the cluster."""
    for name in names:
        session.engine.delete(f"/nodes/{session.node_id(name)}", force=force)
        click.echo(name)


@node.command()
@click.argument("names", metavar="[NODE…]", nargs=-1)
@format_option
@click.option("--no-trunc", is_flag=True, help="Show errors and images in full.")
@pass_session
def ps(session: Session, names: tuple[str, ...], form: str, no_trunc: bool) -> None:
    """Show the tasks on nodes (default: the engine's own)."""
    show_tasks(session, {"node": [session.node_id(name) for name in names or ("self",)]}, form, no_trunc)
