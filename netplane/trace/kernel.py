"""What is read from the kernel for a trace. Slow, and rarely asked for: each reading has a thread."""

import asyncio
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pyroute2 import DiagSocket
from pyroute2.netlink.exceptions import NetlinkError

from netplane import links, netns
from netplane.errors import NetworkError
from netplane.libnftables import LibNftables
from netplane.links import Link

T = TypeVar("T")

CONNECT_SECONDS = 3.0
_LISTEN, _UNCONNECTED = "0A", "07"
_PER_PROTOCOL = {"tcp": _LISTEN, "udp": _UNCONNECTED}
_SCTP_LISTEN = "10"
_MAPPED = bytes(10) + b"\xff\xff"
_TABLE = "shoal"


class SystemKernel:
    """This machine's; see netplane.trace.model.Kernel."""

    def __init__(self, at_connect: Callable[[str, str], Awaitable[Sequence[str] | None]]) -> None:
        self._at_connect = at_connect

    async def at_connect(self, network_id: str, address: str) -> Sequence[str] | None:
        """See Kernel."""
        return await self._at_connect(network_id, address)

    async def links(self) -> Mapping[str, Link]:
        """See Kernel."""
        return await asyncio.to_thread(links.list_links)

    async def addresses(self) -> Collection[str]:
        """See Kernel."""
        return await asyncio.to_thread(links.own_addresses)

    async def mtu_of(self, address: str) -> int:
        """See Kernel."""
        return await asyncio.to_thread(links.mtu_of_address, address)

    async def backends(self, netns: Path, address: str) -> Sequence[str] | None:
        """See Kernel."""
        family = "ip6" if ":" in address else "ip"

        def read() -> Sequence[str] | None:
            sizes = _list(f"map {family} {_TABLE} sizes")
            if sizes is None or not re.search(rf"\b{re.escape(address)} : ", sizes):
                return None
            return slots(_list(f"map {family} {_TABLE} backends") or "", address)

        return await _within(netns, read)

    async def published(self, protocol: str, port: int, *, ipv6: bool = False) -> Sequence[str] | None:
        """See Kernel."""
        family = "ip6" if ipv6 else "ip"
        text = await asyncio.to_thread(_list, f"chain {family} {_TABLE} port_{protocol}_{port}")
        return destinations(text) if text is not None else None

    async def tunnels(self, index: int) -> Mapping[str, str]:
        """See Kernel."""
        return await asyncio.to_thread(links.tunnel_entries, index)

    async def listening(self, netns: Path | None, protocol: str, port: int) -> Collection[str] | None:
        """See Kernel."""

        return await _within(netns, lambda: _listening(protocol, port))

    async def connect(self, netns: Path | None, address: str, port: int) -> str:
        """See Kernel."""

        def attempt() -> str:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(CONNECT_SECONDS)
                try:
                    sock.connect((address, port))
                except TimeoutError:
                    return f"no answer within {CONNECT_SECONDS:.0f} s"
                except OSError as error:
                    return os.strerror(error.errno or errno.EIO)
            return ""

        return await _within(netns, attempt)


async def _within(path: Path | None, work: Callable[[], T]) -> T:
    return await (netns.inside(path, work) if path is not None else asyncio.to_thread(work))


def _list(what: str) -> str | None:
    rules = LibNftables()
    try:
        return rules.list(what)
    except NetworkError:  # there is no such thing
        return None
    finally:
        rules.close()


def _listening(protocol: str, port: int) -> set[str] | None:
    """Of the calling thread's namespace; see Kernel."""
    here = Path("/proc/thread-self/net")
    if protocol == "sctp":
        try:
            return associations(here.joinpath("sctp/eps").read_text(), port)
        except OSError:  # without the module there is no such file, and no such socket
            return set() if not here.joinpath("sctp").exists() else None
    found: set[str] = set()
    for name in (protocol, f"{protocol}6"):
        try:
            found |= listeners(here.joinpath(name).read_text(), port, _PER_PROTOCOL[protocol])
        except FileNotFoundError:  # IPv6 may be off
            continue
    if "::" in found and not _ipv6_only(protocol, port):
        found.add("0.0.0.0")
    return found


def _ipv6_only(protocol: str, port: int) -> bool:
    """Whether what listens on a port at :: takes no IPv4; False, the usual, where the kernel can't tell."""
    with DiagSocket() as diag:
        try:
            sockets = diag.get_sock_stats(
                family=socket.AF_INET6,
                protocol=getattr(socket, f"IPPROTO_{protocol.upper()}"),
                states=1 << int(_PER_PROTOCOL[protocol], 16),
            )
        except NetlinkError:
            return False
        found = [
            each.get_attr("INET_DIAG_SKV6ONLY")
            for each in sockets
            if each["idiag_sport"] == port and each["idiag_src"] == "::"
        ]
    return bool(found) and all(found)


def slots(text: str, address: str) -> tuple[str, ...]:
    """The backends of a service's address in `nft list map … backends`, each once."""
    found = re.findall(rf"(?<![\d.:a-f]){re.escape(address)} \. \S+ : ([\da-f.:]+)", text)
    return tuple(dict.fromkeys(found))


def destinations(text: str) -> tuple[str, ...]:
    """The addresses that a chain's rules lead to."""
    places = "\n".join(line.partition("dnat")[2] for line in text.splitlines())
    # Elements are "0 : ADDRESS . PORT", the rule for one alone is "to ADDRESS:PORT" or "to [ADDRESS]:PORT".
    pattern = r"\d+ : ([\da-f.:]+) \. |\[([\da-f.:]+)\]:|to (\d+\.\d+\.\d+\.\d+)"
    return tuple(dict.fromkeys("".join(found) for found in re.findall(pattern, places)))


def listeners(text: str, port: int, state: str) -> set[str]:
    """The local addresses in /proc/net/tcp and the like that are in a state on a port; "" for any state."""
    found: set[str] = set()
    for line in text.splitlines()[1:]:
        words = line.split()
        address, _, number = words[1].partition(":")
        if int(number, 16) == port and state in ("", words[3]):
            # As the kernel prints them: 32-bit words in the machine's order.
            packed = b"".join(
                int(address[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(address), 8)
            )
            if packed[:12] == _MAPPED:  # an IPv6 socket that was bound to an IPv4 address
                packed = packed[12:]
            found.add(socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed))
    return found


def associations(text: str, port: int) -> set[str]:
    """The same of /proc/net/sctp/eps: a line has an end point's port, and then its addresses."""
    found: set[str] = set()
    for line in text.splitlines()[1:]:
        words = line.split()
        if words[3] == _SCTP_LISTEN and words[5] == str(port):
            found.update(str(ipaddress.ip_address(each.lstrip("*"))) for each in words[8:])
    return found | {"0.0.0.0"} if "::" in found else found
