"""`shoal service …`"""

from collections.abc import Callable
from typing import Any

import click

from cluster.errors import InvalidArgument
from shoal.cli import service_spec
from shoal.cli.client import Json
from shoal.cli.credentials import Credentials
from shoal.cli.explain import service_explain
from shoal.cli.logs import log_options, stream_service_logs
from shoal.cli.output import print_json, say, table
from shoal.cli.pinning import pin
from shoal.cli.planning import show
from shoal.cli.progress import wait_for_service
from shoal.cli.session import ID_WIDTH, Session, format_option, pass_session
from shoal.cli.tasks import show_tasks

_MODES = {
    "Replicated": "replicated",
    "Global": "global",
    "ReplicatedJob": "replicated job",
    "GlobalJob": "global job",
}
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _options(*options: _Decorator) -> _Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _many(name: str, help: str, short: str | None = None) -> _Decorator:
    return click.option(*([short] if short else []), f"--{name}", multiple=True, help=f"{help}; repeatable.")


def _scalar_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that create and update have in common, one value each."""
    short = {"user": "-u", "workdir": "-w", "tty": "-t"}
    for flag, (_, convert, help_text) in reversed(service_spec.SCALAR_FLAGS.items()):
        name = flag.replace("_", "-")
        names = [short[flag]] if flag in short else []
        if convert is bool:
            option = click.option(*names, f"--{name}/--no-{name}", default=None, help=f"{help_text}.")
        else:
            kind = {int: click.INT, float: click.FLOAT}.get(convert, click.STRING)
            option = click.option(*names, f"--{name}", type=kind, default=None, help=f"{help_text}.")
        command = option(command)
    return command


_registry_auth = click.option(
    "--with-registry-auth", is_flag=True, help="Give the nodes your credential for the image's registry."
)
_wait_options = _options(
    click.option("-d", "--detach", is_flag=True, help="Don't wait until it is as asked for."),
    click.option("-q", "--quiet", is_flag=True, help="Wait without showing progress."),
)


@click.group()
def service() -> None:
    """Services: containers that the cluster keeps running."""


service.add_command(service_explain)


@service.command(context_settings={"allow_interspersed_args": False})
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="A name; the cluster chooses one otherwise.")
@click.option("--replicas", type=click.IntRange(min=0), help="How many tasks (default 1).")
@click.option(
    "--mode",
    type=click.Choice(["replicated", "global", "replicated-job", "global-job"]),
    help="Global: one task on every node. Jobs run until they have completed.",
)
@click.option("--max-concurrent", type=click.IntRange(min=1), help="How many tasks of a job at a time.")
@_options(
    _many("publish", "A port to open on every node: 8080:80", "-p"),
    _many("env", "An environment variable: NAME=VALUE", "-e"),
    _many("label", "A label of the service: NAME=VALUE", "-l"),
    _many("container-label", "A label of the containers: NAME=VALUE"),
    _many("network", "A network to attach to"),
    _many("mount", "A mount: type=volume,source=data,target=/data"),
    _many("constraint", "Where tasks may run: node.labels.zone==a"),
    _many("placement-pref", "How tasks spread: spread=node.labels.zone"),
    _many("cap-add", "A capability to add"),
    _many("cap-drop", "A capability to take away"),
    _many("host", "A further line of /etc/hosts: name:address"),
    _many("dns", "A name server"),
)
@click.option("--entrypoint", help="The program, in place of the image's.")
@click.option("--health-cmd", help="A command that tells whether the container is healthy.")
@click.option("--no-healthcheck", is_flag=True, help="Ignore the image's health check.")
@click.option("--no-resolve-image", is_flag=True, help="Don't pin the image to its present digest.")
@_registry_auth
@_scalar_options
@_wait_options
@pass_session
def create(
    session: Session, /, image: str, arguments: tuple[str, ...], detach: bool, quiet: bool, **flags: Any
) -> None:
    """Create a service that runs IMAGE [ARGUMENTS…]."""
    spec = service_spec.created(image, arguments, flags)
    auth = _credential(flags["with_registry_auth"], image)
    if not flags["no_resolve_image"]:
        pin(session.engine, spec, auth)
    if session.planning:
        show(session, {"Services": [spec]})
        return
    answer = session.engine.request("POST", "/services/create", body=spec, headers=_headers(auth))
    for warning in answer.get("Warnings") or ():
        say(f"warning: {warning}")
    click.echo(answer["ID"])
    _wait(session, answer["ID"], detach, quiet)


def _credential(wanted: bool, image: str) -> str:
    """X-Registry-Auth for the image's registry, if it is to be sent along."""
    return Credentials.usual().header(image) if wanted else ""


def _headers(auth: str) -> dict[str, str]:
    return {"X-Registry-Auth": auth} if auth else {}


def _wait(session: Session, service_id: str, detach: bool, quiet: bool, *, rollback: bool = False) -> None:
    if not detach:
        wait_for_service(session.engine, service_id, quiet=quiet, rollback=rollback)


@service.command()
@click.argument("name", metavar="SERVICE")
@click.option("--image", help="Another image.")
@click.option("--args", "arguments", help="Other arguments, separated by spaces.")
@click.option("--replicas", type=click.IntRange(min=0), help="How many tasks.")
@click.option("--force", is_flag=True, help="Replace all tasks even if nothing changes.")
@click.option("--rollback", is_flag=True, help="Return to the specification before the last update.")
@_options(
    _many("env-add", "Add or change a variable: NAME=VALUE"),
    _many("env-rm", "Take a variable away"),
    _many("label-add", "Add or change a label: NAME=VALUE"),
    _many("label-rm", "Take a label away"),
    _many("container-label-add", "Add or change a container label"),
    _many("container-label-rm", "Take a container label away"),
    _many("publish-add", "Open a port: 8080:80"),
    _many("publish-rm", "Close the port that leads to this one in the container: 80"),
    _many("network-add", "Attach to a network"),
    _many("network-rm", "Detach from a network"),
    _many("mount-add", "Add a mount"),
    _many("mount-rm", "Take away the mount at this path"),
    _many("constraint-add", "Add a constraint"),
    _many("constraint-rm", "Take a constraint away"),
)
@click.option("--health-cmd", help="A command that tells whether the container is healthy.")
@click.option("--no-healthcheck", is_flag=True, help="Ignore the image's health check.")
@click.option("--no-resolve-image", is_flag=True, help="Don't pin a new image to its present digest.")
@_registry_auth
@_scalar_options
@_wait_options
@pass_session
def update(
    session: Session,
    /,
    name: str,
    arguments: str | None,
    rollback: bool,
    detach: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Change SERVICE."""
    found = session.service(name)
    query: dict[str, object] = {"version": found["Version"]["Index"]}
    auth = ""
    if rollback:
        if not found.get("PreviousSpec"):
            raise InvalidArgument(
                f"service {name} has not been updated yet: there is nothing to roll back to"
            )
        query["rollback"] = "previous"
        spec = found["Spec"]
    else:
        if flags["network_rm"]:
            ids = [session.engine.get(f"/networks/{network}")["Id"] for network in flags["network_rm"]]
            flags["network_rm"] = (*flags["network_rm"], *ids)
        spec = service_spec.updated(
            found["Spec"], arguments.split() if arguments is not None else None, flags
        )
        auth = _credential(flags["with_registry_auth"], spec["TaskTemplate"]["ContainerSpec"]["Image"])
        if flags["image"] and not flags["no_resolve_image"]:
            pin(session.engine, spec, auth)
    if session.planning:
        show(session, {"Services": [found["PreviousSpec"] if rollback else spec]})
        return
    path = f"/services/{found['ID']}/update"
    answer = session.engine.request("POST", path, query=query, body=spec, headers=_headers(auth))
    for warning in (answer or {}).get("Warnings") or ():
        say(f"warning: {warning}")
    click.echo(name)
    _wait(session, found["ID"], detach, quiet, rollback=rollback)


@service.command(name="refresh-auth")
@click.argument("names", metavar="SERVICE…", nargs=-1, required=True)
@pass_session
def refresh_auth(session: Session, names: tuple[str, ...]) -> None:
    """Give SERVICE your present credential for its image's registry.

    Its tasks go on as they are; tasks to come pull with it.
    """
    for name in names:
        found = session.service(name)
        image = found["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        auth = Credentials.usual().header(image)
        if not auth:
            raise InvalidArgument(f"no credential for the registry of {image}: log in with `docker login`")
        path, query = f"/services/{found['ID']}/update", {"version": found["Version"]["Index"]}
        session.engine.request("POST", path, query=query, body=found["Spec"], headers=_headers(auth))
        click.echo(name)


@service.command()
@click.argument("targets", metavar="SERVICE=REPLICAS…", nargs=-1, required=True)
@_wait_options
@pass_session
def scale(session: Session, targets: tuple[str, ...], detach: bool, quiet: bool) -> None:
    """Change how many tasks services run."""
    wanted = []
    for target in targets:
        name, _, count = target.partition("=")
        if not name or not count.isdigit():
            raise InvalidArgument(f"{target!r}: write SERVICE=REPLICAS, for example web=5")
        wanted.append((name, int(count)))
    scaled = []
    if session.planning:
        specs = [service_spec.with_replicas(session.service(name)["Spec"], count) for name, count in wanted]
        show(session, {"Services": specs})
        return
    for name, replicas in wanted:
        found = session.service(name)
        spec = service_spec.with_replicas(found["Spec"], replicas)
        session.engine.post(f"/services/{found['ID']}/update", spec, version=found["Version"]["Index"])
        click.echo(f"{name} scaled to {replicas}")
        scaled.append(found["ID"])
    for service_id in scaled:
        _wait(session, service_id, detach, quiet)


@service.command(name="ls")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@pass_session
def list_services(session: Session, form: str, quiet: bool) -> None:
    """List services."""
    services = sorted(session.engine.get("/services", status=True), key=lambda s: str(s["Spec"]["Name"]))
    if quiet:
        for found in services:
            click.echo(found["ID"])
    elif form == "json":
        print_json(services)
    else:
        table(
            ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"], [service_row(found) for found in services]
        )


def service_row(found: Json) -> list[str]:
    """A service's line in a list."""
    spec = found["Spec"]
    status = found.get("ServiceStatus") or {}
    image = spec["TaskTemplate"].get("ContainerSpec", {}).get("Image", "").partition("@")[0]
    ports = [
        f"*:{port['PublishedPort']}->{port['TargetPort']}/{port.get('Protocol', 'tcp')}"
        for port in (found.get("Endpoint") or {}).get("Ports") or ()
        if port.get("PublishedPort")
    ]
    mode = _MODES.get(next(iter(spec.get("Mode") or {"Replicated": None})), "")
    replicas = f"{status.get('RunningTasks', 0)}/{status.get('DesiredTasks', 0)}"
    if mode == "replicated job":
        total = spec["Mode"]["ReplicatedJob"].get("TotalCompletions", 1)
        replicas += f" ({status.get('CompletedTasks', 0)}/{total} completed)"
    return [found["ID"][:ID_WIDTH], spec["Name"], mode, replicas, image, ", ".join(ports)]


@service.command()
@click.argument("names", metavar="SERVICE…", nargs=-1, required=True)
@pass_session
def inspect(session: Session, names: tuple[str, ...]) -> None:
    """Show services in full, as JSON."""
    print_json([session.service(name) for name in names])


@service.command()
@click.argument("names", metavar="SERVICE…", nargs=-1, required=True)
@pass_session
def rm(session: Session, names: tuple[str, ...]) -> None:
    """Remove services and stop their tasks."""
    if session.planning:
        show(session, {"Remove": list(names)})
        return
    for name in names:
        session.engine.delete(f"/services/{name}")
        click.echo(name)


@service.command()
@click.argument("names", metavar="SERVICE…", nargs=-1, required=True)
@format_option
@click.option("--no-trunc", is_flag=True, help="Show errors and images in full.")
@pass_session
def ps(session: Session, names: tuple[str, ...], form: str, no_trunc: bool) -> None:
    """Show the tasks of services."""
    ids = [session.service(name)["ID"] for name in names]
    show_tasks(session, {"service": ids}, form, no_trunc)


@service.command()
@click.argument("name", metavar="SERVICE")
@log_options
@pass_session
def logs(session: Session, /, name: str, **options: Any) -> None:
    """Show what the tasks of SERVICE print."""
    stream_service_logs(session, session.service(name), options)
