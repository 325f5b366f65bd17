"""Log drivers and their options, as dockerd takes them: `--log-driver`, `--log-opt`."""

import re
from collections.abc import Mapping

from cluster.errors import InvalidArgument
from cluster.log_tag import tag
from cluster.pattern import compiled

DRIVERS = ("json-file", "local", "none", "journald")

_ATTRIBUTES = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_DELIVERY = frozenset({"mode", "max-buffer-size"})
_OPTIONS: dict[str, frozenset[str]] = {
    "json-file": frozenset({"max-size", "max-file", "compress"}) | _ATTRIBUTES | _DELIVERY,
    "local": frozenset({"max-size", "max-file", "compress"}) | _ATTRIBUTES | _DELIVERY,
    "journald": _ATTRIBUTES | _DELIVERY,
}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_BOOLEANS = ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False")


def parse_size(text: str) -> int:
    """Docker's sizes: `10m`, `1.5g`, `512`, `64KiB`; bytes."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"invalid size: {text!r}")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def is_true(text: str) -> bool:
    """A Go boolean of an option; false when it is not given."""
    return text in _BOOLEANS[:6]


def check_log_options(driver: str, options: Mapping[str, str]) -> None:
    """Refuse unknown drivers and options, and values that can't be meant. Raises InvalidArgument."""
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    if driver == "none":
        return  # as dockerd: the driver takes options and has no use for them
    for name in sorted(options):
        if name not in _OPTIONS[driver]:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")
    size, files = options.get("max-size", ""), options.get("max-file", "")
    if size and size != "-1" and parse_size(size) <= 0:
        raise InvalidArgument(f"invalid value for max-size: {size!r}: it must be a positive number")
    if files and not (files.isascii() and files.isdigit() and int(files[:9]) > 0 and len(files) < 10):
        raise InvalidArgument(f"invalid value for max-file: {files!r}: a number of at least 1 is needed")
    bounded = driver == "local" or (bool(size) and size != "-1")
    kept = int(files or (5 if driver == "local" else 1))
    _check_compress(options.get("compress", ""), bounded and kept > 1)
    _check_delivery(options)
    tag(options.get("tag", ""))
    for name in ("labels-regex", "env-regex"):
        try:
            compiled(options.get(name, ""))
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid value for {name}: {error}") from error


def _check_compress(text: str, possible: bool) -> None:
    if text and text not in _BOOLEANS:
        raise InvalidArgument(f"invalid value for compress: {text!r}: use true or false")
    if is_true(text) and not possible:
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")


def _check_delivery(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        parse_size(options["max-buffer-size"])
