"""The entry point of `shoal`: finds a command's module only when the command is called."""

import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from cluster.errors import InvalidArgument, ShoalError
from shoal.cli.session import Session

_COMMANDS = {
    "cluster": ("shoal.cli.cluster", "cluster", "How the managers are; backup and restore."),
    "completion": ("shoal.cli.completion", "completion", "Print a shell's completion script."),
    "config": ("shoal.cli.payloads", "config", "Configs: files that the cluster hands to services."),
    "doctor": ("shoal.doctor.commands", "doctor", "Say what this machine lacks, and how to get it."),
    "image": ("shoal.cli.image", "image", "Images on this node."),
    "info": ("shoal.cli.system", "info", "Show the engine and its place in the cluster."),
    "logs": ("shoal.cli.system", "logs", "Show what a container prints."),
    "network": ("shoal.cli.network", "network", "Networks between containers."),
    "node": ("shoal.cli.node", "node", "The machines of the cluster."),
    "plan": ("shoal.cli.plan", "plan", "What a change would do; nothing changes."),
    "playground": ("shoal.playground.commands", "playground", "A cluster of several hosts on this machine."),
    "ps": ("shoal.cli.system", "ps", "List the containers on this node."),
    "secret": ("shoal.cli.payloads", "secret", "Secrets: what services may know and nobody else."),
    "service": ("shoal.cli.service", "service", "Services: containers that the cluster keeps running."),
    "stack": ("shoal.cli.stack", "stack", "Stacks: what a Compose file describes, as a whole."),
    "swarm": ("shoal.cli.swarm", "swarm", "The cluster itself."),
    "task": ("shoal.cli.explain", "task", "Tasks: single runs of a service's container."),
    "version": ("shoal.cli.system", "version", "Show the versions of this command and of the engine."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use, so that help and completion start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, _, help_text) in sorted(_COMMANDS.items())])


_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-H", "--host", help="The engine: unix:///path or tcp://host:port (default SHOAL_HOST, DOCKER_HOST)."
)
@click.option("--tlsverify", is_flag=True, envvar="DOCKER_TLS_VERIFY", help="Speak mutual TLS.")
@click.option("--tlscacert", type=_file, help="The CA that signed the engine's certificate.")
@click.option("--tlscert", type=_file, help="Our certificate.")
@click.option("--tlskey", type=_file, help="Our key.")
@click.option(
    "--stale", is_flag=True, help="Read what the engine's own manager knows, at once and without a quorum."
)
@click.pass_context
def shoal(
    context: click.Context,
    host: str | None,
    tlsverify: bool,
    tlscacert: Path | None,
    tlscert: Path | None,
    tlskey: Path | None,
    stale: bool,
) -> None:
    """A cluster of containers that speaks Docker's API."""
    folder = os.environ.get("DOCKER_CERT_PATH")
    session = Session(host, tlsverify, Path(folder) if folder else None, tlscacert, tlscert, tlskey, stale)
    context.obj = session
    context.call_on_close(session.say_how_old)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run `shoal`. An error becomes one line on standard error.

    Exits with 0 on success, 1 when the engine or the machine refuses, 2 for a command line that can't be
    meant as written, 130 after Ctrl-C.
    """
    try:
        status = shoal.main(args=arguments, prog_name="shoal", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader, such as `head`, has seen enough
        sys.exit(0)
    except ShoalError as error:
        click.echo(f"shoal: {error}", err=True)
        sys.exit(2 if isinstance(error, InvalidArgument) else 1)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
