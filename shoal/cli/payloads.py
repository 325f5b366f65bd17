"""`shoal secret …` and `shoal config …`"""

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cluster.errors import InvalidArgument
from shoal.cli import service_flags
from shoal.cli.client import Json
from shoal.cli.output import ago, parse_time, print_json, say, table
from shoal.cli.progress import wait_for_services
from shoal.cli.session import Session, format_option, pass_session

_FILTERS = ("id", "label", "name", "names")


def _content(file: str) -> str:
    """The file's bytes in base64; `-` is standard input. Raises InvalidArgument."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{file}: can't be read: {error.strerror}") from error
    return base64.b64encode(data).decode()


def _filters(given: tuple[str, ...]) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key not in _FILTERS:
            raise InvalidArgument(f"--filter {text}: write one of {', '.join(f'{k}=…' for k in _FILTERS)}")
        found.setdefault(key, []).append(value)
    return found or None


def _row(found: Json) -> list[str]:
    spec = found["Spec"]
    version = (spec.get("Labels") or {}).get("shoal.version", "1")
    created, updated = (ago(parse_time(found[key])) for key in ("CreatedAt", "UpdatedAt"))
    driver = (spec.get("Driver") or {}).get("Name", "")
    return [found["ID"], spec["Name"], version, driver, created, updated]


def _pretty(found: Json) -> str:
    spec = found["Spec"]
    lines = [f"ID:          {found['ID']}", f"Name:        {spec['Name']}"]
    labels = [f" - {key}={value}" for key, value in sorted((spec.get("Labels") or {}).items())]
    lines += ["Labels:", *labels] if labels else ["Labels:"]
    lines += [f"Created at:  {found['CreatedAt']}", f"Updated at:  {found['UpdatedAt']}"]
    if "Data" in spec:
        lines += ["Data:", base64.b64decode(spec["Data"]).decode(errors="replace")]
    return "\n".join(lines)


def _group(kind: str, words: str) -> click.Group:
    """The commands for one kind; both work the same way."""
    path = f"/{kind}s"
    names = click.argument("names", metavar=f"{kind.upper()}…", nargs=-1, required=True)
    template = click.option(
        "--template-driver", help="What fills in the content's templates for each task: golang."
    )

    def create(
        session: Session, name: str, file: str, labels: tuple[str, ...], template_driver: str | None
    ) -> None:
        spec: Json = {"Name": name, "Labels": service_flags.pairs(labels, "--label"), "Data": _content(file)}
        if template_driver:
            spec["Templating"] = {"Name": template_driver}
        click.echo(session.engine.post(f"{path}/create", spec)["ID"])

    def ls(session: Session, form: str, quiet: bool, filters: tuple[str, ...]) -> None:
        found = sorted(
            session.engine.get(path, filters=_filters(filters)), key=lambda s: str(s["Spec"]["Name"])
        )
        if quiet:
            for one in found:
                click.echo(one["ID"])
        elif form == "json":
            print_json(found)
        else:
            table(["ID", "NAME", "VERSION", "DRIVER", "CREATED", "UPDATED"], [_row(one) for one in found])

    def inspect(session: Session, names: tuple[str, ...], pretty: bool) -> None:
        found = [session.engine.get(f"{path}/{name}") for name in names]
        if pretty:
            click.echo("\n\n".join(_pretty(one) for one in found))
        else:
            print_json(found)

    def rm(session: Session, names: tuple[str, ...]) -> None:
        for name in names:
            session.engine.delete(f"{path}/{name}")
            click.echo(name)

    def update(
        session: Session,
        name: str,
        file: str,
        labels: tuple[str, ...],
        template_driver: str | None,
        detach: bool,
        quiet: bool,
    ) -> None:
        spec: Json = {"Data": _content(file)}
        if labels:
            spec["Labels"] = service_flags.pairs(labels, "--label")
        if template_driver:
            spec["Templating"] = {"Name": template_driver}
        made = session.engine.post(f"/shoal/{kind}s/{name}/versions", spec)
        click.echo(made["ID"])
        rolled = made["Services"]
        say(
            f"{name} has version {made['Version']}"
            + (f"; rolled to it: {', '.join(rolled)}" if rolled else "")
        )
        if rolled and not detach:
            services = {service: str(session.service(service)["ID"]) for service in rolled}
            wait_for_services(session.engine, services, quiet=quiet)

    group = click.Group(kind, help=words)
    label = click.option("-l", "--label", "labels", multiple=True, help="A label: NAME=VALUE; repeatable.")
    name_and_file = [click.argument("name"), click.argument("file")]
    filters = click.option("-f", "--filter", "filters", multiple=True, help="id=, name=, names= or label=.")
    wait = [
        click.option("-d", "--detach", is_flag=True, help="Don't wait until the services have rolled."),
        click.option("-q", "--quiet", is_flag=True, help="Wait without showing progress."),
    ]
    ids = click.option("-q", "--quiet", is_flag=True, help="Only ids.")
    pretty = click.option("--pretty", is_flag=True, help="In words.")
    for name, command, help_text, options in (
        (
            "create",
            create,
            f"Make a {kind} NAME of FILE; - is standard input.",
            [*name_and_file, label, template],
        ),
        ("ls", ls, f"List {kind}s.", [format_option, ids, filters]),
        ("inspect", inspect, f"Show {kind}s in full.", [names, pretty]),
        ("rm", rm, f"Remove {kind}s that no service uses.", [names]),
        (
            "update",
            update,
            f"Give {kind} NAME the content of FILE: services that use it roll to the new version.",
            [*name_and_file, label, template, *wait],
        ),
    ):
        group.add_command(_command(name, command, help_text, options))
    return group


def _command(
    name: str, command: Callable[..., Any], help_text: str, options: list[Callable[..., Any]]
) -> click.Command:
    decorated = pass_session(command)
    for option in reversed(options):
        decorated = option(decorated)
    return click.command(name=name, help=help_text)(decorated)


secret = _group("secret", "Secrets: what services may know and nobody else.")
config = _group("config", "Configs: files that the cluster hands to services.")
