"""`shoal network …`"""

import textwrap

import click

from cluster.errors import InvalidArgument
from shoal.cli import service_flags
from shoal.cli.client import Json
from shoal.cli.output import print_json, table
from shoal.cli.session import ID_WIDTH, Session, format_option, pass_session


@click.group()
def network() -> None:
    """Networks between containers."""


@network.command()
@click.argument("name")
@click.option("-d", "--driver", default="bridge", show_default=True, help="bridge, overlay, macvlan, ipvlan.")
@click.option("--subnet", "subnets", multiple=True, help="A subnet, such as 10.7.0.0/24; repeatable.")
@click.option("--gateway", "gateways", multiple=True, help="The gateway of the subnet at the same place.")
@click.option("--ip-range", "ranges", multiple=True, help="The part to take addresses from.")
@click.option("--attachable", is_flag=True, help="Containers outside services may attach.")
@click.option("--internal", is_flag=True, help="No way out.")
@click.option("--ingress", is_flag=True, help="The network of the routing mesh.")
@click.option("--ipv6", is_flag=True, help="With IPv6.")
@click.option("--scope", default="", help="swarm: a network of the cluster, whatever its driver.")
@click.option("--config-only", is_flag=True, help="Only holds settings for other networks of this node.")
@click.option("--config-from", default="", help="The network of each node whose settings to take.")
@click.option("-l", "--label", "labels", multiple=True, help="A label: NAME=VALUE; repeatable.")
@click.option("-o", "--opt", "options", multiple=True, help="A driver option: NAME=VALUE; repeatable.")
@pass_session
def create(
    session: Session,
    name: str,
    driver: str,
    subnets: tuple[str, ...],
    gateways: tuple[str, ...],
    ranges: tuple[str, ...],
    attachable: bool,
    internal: bool,
    ingress: bool,
    ipv6: bool,
    scope: str,
    config_only: bool,
    config_from: str,
    labels: tuple[str, ...],
    options: tuple[str, ...],
) -> None:
    """Create a network."""
    body: Json = {
        "Name": name,
        "Driver": driver,
        "Attachable": attachable,
        "Internal": internal,
        "Ingress": ingress,
        "EnableIPv6": ipv6,
        "Scope": scope,
        "ConfigOnly": config_only,
        "ConfigFrom": {"Network": config_from} if config_from else None,
        "Labels": service_flags.pairs(labels, "--label"),
        "Options": service_flags.pairs(options, "--opt"),
        "IPAM": {"Driver": "default", "Config": ipam(subnets, gateways, ranges)},
    }
    click.echo(session.engine.post("/networks/create", body)["Id"])


def ipam(subnets: tuple[str, ...], gateways: tuple[str, ...], ranges: tuple[str, ...]) -> list[Json]:
    """The address configuration of the flags, which belong together by their order.

    Raises:
        InvalidArgument: there are more gateways or ranges than subnets.
    """
    if max(len(gateways), len(ranges)) > len(subnets):
        raise InvalidArgument("each --gateway and --ip-range needs its --subnet")
    configs: list[Json] = [{"Subnet": subnet} for subnet in subnets]
    for config, gateway in zip(configs, gateways, strict=False):
        config["Gateway"] = gateway
    for config, part in zip(configs, ranges, strict=False):
        config["IPRange"] = part
    return configs


@network.command(name="ls")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@pass_session
def list_networks(session: Session, form: str, quiet: bool) -> None:
    """List networks."""
    networks = sorted(session.engine.get("/networks"), key=lambda n: str(n["Name"]))
    if quiet:
        for found in networks:
            click.echo(found["Id"])
    elif form == "json":
        print_json(networks)
    else:
        rows = [[n["Id"][:ID_WIDTH], n["Name"], n["Driver"], n["Scope"]] for n in networks]
        table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"], rows)


@network.command()
@click.argument("names", metavar="NETWORK…", nargs=-1, required=True)
@click.option("-v", "--verbose", is_flag=True, help="With services and tasks.")
@pass_session
def inspect(session: Session, names: tuple[str, ...], verbose: bool) -> None:
    """Show networks in full, as JSON."""
    print_json([session.engine.get(f"/networks/{name}", verbose=verbose) for name in names])


@network.command(name="rotate-keys", options_metavar="")
@click.argument("names", nargs=-1, metavar="")
@pass_session
def rotate_keys(session: Session, names: tuple[str, ...]) -> None:
    """Begin new keys for all encrypted networks now. No packet is lost; `inspect` shows how far it is."""
    if names:
        raise click.UsageError(
            f"keys are the cluster's, not a network's: leave {' '.join(names)} out, "
            "and all encrypted networks get new ones"
        )
    epoch = session.engine.post("/shoal/networks/rotate-keys", {})["Epoch"]
    click.echo(f"keys of epoch {epoch + 1} are being made")


@network.command()
@click.argument("names", metavar="NETWORK…", nargs=-1, required=True)
@pass_session
def rm(session: Session, names: tuple[str, ...]) -> None:
    """Remove networks."""
    for name in names:
        session.engine.delete(f"/networks/{name}")
        click.echo(name)


@network.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST[:PORT]")
@click.option("--protocol", type=click.Choice(("tcp", "udp", "sctp")), default="tcp", show_default=True)
@click.option("--probe", is_flag=True, help="At last try a TCP connection from SRC.")
@format_option
@click.pass_context
def trace(
    context: click.Context, source: str, destination: str, protocol: str, probe: bool, form: str
) -> None:
    """Walk a packet's way from SRC to DST, and say where it stops and what to do.

    SRC is a container, task or service of this node, `host`, or `outside` (a client of published ports). DST
    is a name or address as SRC would use it; for `host` and `outside` also a service, by a port of its.
    Nothing is changed. Exits with 1 if the way ends before DST.
    """
    session = context.find_object(Session) or Session()
    words = {"from": source, "to": destination, "protocol": protocol, "probe": probe}
    told = session.engine.get("/shoal/network/trace", **words)
    if form == "json":
        print_json(told)
    else:
        show_trace(told)
    context.exit(0 if told["Arrives"] else 1)


def show_trace(told: Json) -> None:
    """A trace, a station a line, and at last the verdict."""
    for step in told["Steps"]:
        sign, colour = ("✔", "green") if step["Good"] else ("✘", "red")
        if not step.get("Checked", True):  # older daemons say nothing of it
            sign, colour = "?", "yellow"
        head = f"{step['Stage']:<9}"
        text = textwrap.fill(step["Text"], 100, initial_indent=head, subsequent_indent=" " * 13)
        click.echo(f"  {click.style(sign, fg=colour)} {text}")
        if step["Advice"]:
            advice = f"to do: {step['Advice']}"
            click.echo(textwrap.fill(advice, 100, initial_indent=" " * 13, subsequent_indent=" " * 20))
    if told["Arrives"]:
        click.echo(told["Summary"])
