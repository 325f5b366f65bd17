"""Dockerfile instructions that change an image's configuration (`docker commit` and `import --change`).

Format: the Dockerfile reference; only instructions that touch no file are taken.
"""

import json
import shlex
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from cluster.errors import InvalidArgument
from worker.images.config import ImageConfig

Change = Callable[[ImageConfig, str], ImageConfig]


def apply_changes(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """The configuration after these instructions, one a line. Raises InvalidArgument."""
    for text in changes:
        for line in filter(None, map(str.strip, text.splitlines())):
            instruction, _, rest = line.partition(" ")
            change = _CHANGES.get(instruction.upper())
            if change is None:
                raise InvalidArgument(f"{instruction} is not a valid change command")
            if not rest.strip():
                raise InvalidArgument(f"{instruction.upper()} requires at least one argument")
            config = change(config, rest.strip())
    return config


def _command(text: str) -> tuple[str, ...]:
    """The exec form (a JSON list), or the shell form."""
    return _listed(text) or ("/bin/sh", "-c", text)


def _listed(text: str) -> tuple[str, ...] | None:
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return tuple(found) if found and all(isinstance(each, str) for each in found) else None


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"can't read {text!r}: {error}") from error


def _pairs(text: str) -> dict[str, str]:
    """`KEY=VALUE …`, or the old `KEY VALUE`."""
    words = _words(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        return {key: value.strip()}
    if not all("=" in word for word in words):
        raise InvalidArgument(f"can't find = in {text!r}: write NAME=VALUE")
    return dict(word.split("=", 1) for word in words)


def _env(config: ImageConfig, text: str) -> ImageConfig:
    pairs = _pairs(text)
    kept = [each for each in config.env if each.partition("=")[0] not in pairs]
    return replace(config, env=(*kept, *(f"{key}={value}" for key, value in pairs.items())))


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    ports = [word if "/" in word else f"{word}/tcp" for word in text.split()]
    for port in ports:
        number, _, protocol = port.partition("/")
        if not number.isdecimal() or int(number) > 65535 or protocol not in ("tcp", "udp", "sctp"):
            raise InvalidArgument(f"invalid port {port!r}: write PORT[/PROTOCOL]")
    return replace(config, exposed_ports=tuple(sorted({*config.exposed_ports, *ports})))


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, volumes=tuple(sorted({*config.volumes, *(_listed(text) or text.split())})))


_CHANGES: dict[str, Change] = {
    "CMD": lambda config, text: replace(config, cmd=_command(text)),
    "ENTRYPOINT": lambda config, text: replace(config, entrypoint=_command(text)),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": lambda config, text: replace(config, labels={**config.labels, **_pairs(text)}),
    "ONBUILD": lambda config, text: replace(config, on_build=(*config.on_build, text)),
    "STOPSIGNAL": lambda config, text: replace(config, stop_signal=text),
    "USER": lambda config, text: replace(config, user=text),
    "VOLUME": _volume,
    "WORKDIR": lambda config, text: replace(config, working_dir=text),
}
