"""Docker's options of a container's place in a network (`--network name=NET,driver-opt=…`)."""

import re
from collections.abc import Mapping
from typing import TypedDict

from cluster.errors import InvalidArgument

_ENDPOINT = "com.docker.network.endpoint."
_DEVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}", re.ASCII)


class InterfaceOptions(TypedDict, total=False):
    """The fields of an Attachment that come from driver options."""

    device: str
    sysctls: tuple[tuple[str, str], ...]


def interface_options(options: Mapping[str, str]) -> InterfaceOptions:
    """Read them. Others are kept, and mean nothing. Raises InvalidArgument."""
    found = InterfaceOptions()
    if device := options.get(f"{_ENDPOINT}ifname", ""):
        if not _DEVICE.fullmatch(device) or device == "lo":
            raise InvalidArgument(f"invalid interface name {device!r}: at most 15 letters, digits, . _ -")
        found["device"] = device
    if text := options.get(f"{_ENDPOINT}sysctls", ""):
        pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
        if any(not equals for _, equals, _ in pairs):
            raise InvalidArgument(f"invalid value of {_ENDPOINT}sysctls: write NAME=VALUE, joined by commas")
        found["sysctls"] = tuple((name, value) for name, _, value in pairs)
    return found
