"""Kernel switches of the calling thread's network namespace."""

import logging
from pathlib import Path

from netplane.errors import NetworkError

log = logging.getLogger("shoal.netplane")

_ROOT = Path("/proc/sys/net")


def read(name: str) -> str:
    """The value of `net.<name>`, for example `ipv4/ip_forward`; "" if the kernel lacks it."""
    try:
        return (_ROOT / name).read_text().strip()
    except OSError:
        return ""


def write(name: str, value: str, *, optional: bool = False) -> None:
    """Set `net.<name>` unless it is set already."""
    try:
        if (_ROOT / name).read_text().strip() != value:
            (_ROOT / name).write_text(value)
    except OSError as error:
        if not optional:
            raise NetworkError(f"setting net/{name} to {value}: {error.strerror}") from error


def has_ipv6() -> bool:
    """Whether the kernel has IPv6, and it is not switched off as a whole."""
    return read("ipv6/conf/default/disable_ipv6") != ""


def prepare_host() -> None:
    """Forward packets; let replies take another way than requests; keep bridged frames out of iptables.

    The kernel takes the stricter of `all` and the link's own reverse-path filter, so that `all` must go. What
    it meant for the links that exist is kept by writing it to each of them.
    """
    write("ipv4/ip_forward", "1")
    strict = read("ipv4/conf/all/rp_filter")
    if strict not in ("", "0"):
        for link in (_ROOT / "ipv4/conf").iterdir():
            if link.name != "all" and int(read(f"ipv4/conf/{link.name}/rp_filter") or 0) < int(strict):
                write(f"ipv4/conf/{link.name}/rp_filter", strict, optional=True)
        write("ipv4/conf/all/rp_filter", "0")
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"):
        if read(f"bridge/{name}") == "1":
            log.info("net.bridge.%s set to 0: frames inside a network are not the firewall's", name)
            write(f"bridge/{name}", "0", optional=True)


def prepare_bridge(name: str, *, ipv6: bool = False) -> None:
    """Let loopback clients reach published ports through this bridge, and replies come from anywhere."""
    write(f"ipv4/conf/{name}/route_localnet", "1")
    write(f"ipv4/conf/{name}/rp_filter", "0")
    write(f"ipv6/conf/{name}/disable_ipv6", "0" if ipv6 else "1", optional=not ipv6)
    if ipv6:
        write(f"ipv6/conf/{name}/accept_ra", "0")
        _forward_ipv6()


def _forward_ipv6() -> None:
    """Forward IPv6 packets. A kernel that forwards heeds router advertisements no longer, unless a link is
    told to: those that did go on to."""
    if read("ipv6/conf/all/forwarding") == "1":
        return
    for link in (_ROOT / "ipv6/conf").iterdir():
        if link.name != "all" and read(f"ipv6/conf/{link.name}/accept_ra") == "1":
            write(f"ipv6/conf/{link.name}/accept_ra", "2", optional=True)
    write("ipv6/conf/all/forwarding", "1")
