"""Files of variables: `.env` beside a Compose file, and a service's `env_file`."""

import re
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import InvalidArgument

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.\-]*")


def parse(text: str, file: str) -> dict[str, str | None]:
    """`NAME=VALUE` lines; None for a name without a value, which the environment of the caller gives.

    Blank lines and those that begin with # are left out; one pair of quotes around a value is taken off.
    Raises InvalidArgument with file and line.
    """
    found: dict[str, str | None] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().removeprefix("\ufeff")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name = name.strip()
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"{file}:{number}: {name!r} is no variable's name: write NAME=VALUE")
        found[name] = _unquoted(value.strip()) if equals else None
    return found


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value.partition(" #")[0].rstrip()


def read(path: Path) -> dict[str, str | None]:
    """The file's variables. Raises InvalidArgument when it can't be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeError) as error:
        raise InvalidArgument(f"{path}: can't be read: {error}") from error


def variables(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What `${…}` may use: the `.env` of the folder, and over it the environment."""
    file = folder / ".env"
    given = read(file) if file.is_file() else {}
    return {name: value for name, value in given.items() if value is not None} | dict(environment)
