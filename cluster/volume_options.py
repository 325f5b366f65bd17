"""The options of the volume driver `local`: what mount(8) would be given."""

from collections.abc import Mapping

from cluster.errors import InvalidArgument

_OPTIONS = ("type", "o", "device")


def check_local_options(options: Mapping[str, str]) -> None:
    """Refuse options that the driver has not, and halves of a mount. Raises InvalidArgument."""
    for name in sorted(options):
        if name == "size":
            raise InvalidArgument("quota size requested but no quota support: leave the option size out")
        if name not in _OPTIONS:
            raise InvalidArgument(f'invalid option: "{name}" (there are {", ".join(_OPTIONS)})')
    if not options:
        return
    for name, needed in (("type", "device"), ("device", "type")):
        if options.get(name) and not options.get(needed) and not _bind(options):
            raise InvalidArgument(f"missing {needed} in volume options")
    if options.get("o") and not options.get("device"):
        raise InvalidArgument("missing device in volume options")


def _bind(options: Mapping[str, str]) -> bool:
    words = options.get("o", "").split(",")
    return bool(options.get("device")) and ("bind" in words or "rbind" in words)
