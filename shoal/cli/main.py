"""The entry point of `shoal`: finds the command's module only when the command is called."""

import importlib
import sys
from typing import NoReturn

import click

from cluster.errors import ShoalError

_COMMANDS = {
    "playground": ("shoal.playground.commands", "playground", "A cluster of several hosts on this machine."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use, so that `shoal --help` and completion start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted([*_COMMANDS, *super().list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup)
def shoal() -> None:
    """A cluster of containers that speaks Docker's API."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run `shoal`; errors become one line on standard error and an exit status."""
    try:
        shoal.main(args=arguments, prog_name="shoal", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ShoalError as error:
        click.echo(f"shoal: {error}", err=True)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
