"""The options of a user's bridge network, Docker's names (`com.docker.network.…`) to what is done."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from netplane import gateway_modes
from netplane.errors import InvalidNetwork

_BRIDGE = "com.docker.network.bridge."
NAME = f"{_BRIDGE}name"
MTU = "com.docker.network.driver.mtu"
PREFIX = "com.docker.network.container_iface_prefix"
_MODES = ("gateway_mode_ipv4", "gateway_mode_ipv6")
_DEVICE = re.compile(r"[a-zA-Z0-9._-]{1,15}")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


@dataclass(frozen=True)
class BridgeOptions:
    """The options, read. `device` is "" where a name is made up."""

    device: str = ""
    mtu: int = 1500
    masquerade: bool = True
    containers_talk: bool = True
    address_on_bridge: bool = True
    address6_on_bridge: bool = True
    host_address: str = ""
    interface_prefix: str = "eth"
    gateway_mode: str = gateway_modes.NAT
    gateway_mode6: str = gateway_modes.NAT
    trusted: tuple[str, ...] = ()


def read_options(options: Mapping[str, str], *, internal: bool) -> BridgeOptions:
    """Read them. Raises InvalidNetwork for values that can't be meant. Options that are nobody's are let
    pass, as dockerd does."""
    modes = [options.get(_BRIDGE + name, "") or gateway_modes.NAT for name in _MODES]
    for mode in modes:
        if mode not in gateway_modes.MODES:
            raise InvalidNetwork(f"unknown gateway mode {mode}: one of {', '.join(gateway_modes.MODES)}")
        if mode == gateway_modes.ISOLATED and not internal:
            raise InvalidNetwork("gateway mode 'isolated' can only be used for an internal network")
    device = options.get(NAME, "")
    if device and (not _DEVICE.fullmatch(device) or device in (".", "..")):
        # Others the kernel may take, but the firewall's rules could not name them.
        raise InvalidNetwork(
            f"invalid bridge name {device!r}: at most 15 letters, digits, dots, dashes and underscores"
        )
    prefix = options.get(PREFIX, "eth") or "eth"
    if len(prefix) > 12 or not prefix.isascii() or not prefix.isalnum():
        raise InvalidNetwork(f"invalid interface prefix {prefix!r}: at most 12 letters and digits")
    inhibited = _boolean(options, "inhibit_ipv4", default=False)
    return BridgeOptions(
        device=device,
        mtu=read_mtu(options) or 1500,
        masquerade=_boolean(options, "enable_ip_masquerade", default=True),
        containers_talk=_boolean(options, "enable_icc", default=True),
        gateway_mode=modes[0],
        gateway_mode6=modes[1],
        address_on_bridge=modes[0] != gateway_modes.ISOLATED and not inhibited,
        address6_on_bridge=modes[1] != gateway_modes.ISOLATED,
        host_address=_host_address(options.get(f"{_BRIDGE}host_binding_ipv4", "")),
        interface_prefix=prefix,
        trusted=_links(options.get(f"{_BRIDGE}trusted_host_interfaces", "")),
    )


def _links(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(":") if name)
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise InvalidNetwork(
                f"invalid value for {_BRIDGE}trusted_host_interfaces: {name!r} is no link's name"
            )
    return names


def _boolean(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = options.get(_BRIDGE + name, "").lower()
    if text in ("", *_TRUE, *_FALSE):
        return default if text == "" else text in _TRUE
    raise InvalidNetwork(f"invalid value for {_BRIDGE}{name}: {text!r} (true or false)")


def read_mtu(options: Mapping[str, str]) -> int:
    """The MTU that is asked for; 0: none. Raises InvalidNetwork."""
    text = options.get(MTU, "")
    if text in ("", "0"):
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 68 <= int(text) <= 65535:
        raise InvalidNetwork(f"{MTU} must be a number of bytes from 68 to 65535, not {text!r}")
    return int(text)


def _host_address(text: str) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise InvalidNetwork(f"invalid value for {_BRIDGE}host_binding_ipv4: {text!r}") from error
    return "" if address.is_unspecified else str(address)
