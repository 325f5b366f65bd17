"""The text of a container's /etc/resolv.conf and /etc/hosts."""

import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from netplane.model import DNS

NAME_SERVER = "127.0.0.11"

_HOST_RESOLV = Path("/etc/resolv.conf")
# Where systemd-resolved keeps the real servers when /etc/resolv.conf names only its own stub.
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
_FALLBACK = ("8.8.8.8", "8.8.4.4")

_LOCALHOST = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def parse(text: str) -> DNS:
    """The servers, search domains and options of a resolv.conf."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += tuple(words[1:])
    return DNS(tuple(servers), search, options)


def host_dns() -> DNS:
    """The host's resolver settings as they are now."""
    for path in (_HOST_RESOLV, _RESOLVED):
        try:
            found = parse(path.read_text())
        except OSError:
            continue
        if any(not _loopback(server) for server in found.servers):
            return found
    try:
        return parse(_HOST_RESOLV.read_text())
    except OSError:
        return DNS()


def upstreams(own: DNS, host: DNS) -> tuple[str, ...]:
    """Whom the name server in a sandbox asks; it asks from the host, so that the host's loopback will do."""
    return own.servers or host.servers or _FALLBACK


def resolv_conf(own: DNS, host: DNS, *, embedded: bool) -> str:
    """A container's resolv.conf: the embedded name server, or servers that it can reach itself."""
    if embedded:
        servers: Sequence[str] = (NAME_SERVER,)
        options = own.options or host.options
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")
    else:
        servers = own.servers or [each for each in host.servers if not _loopback(each)] or _FALLBACK
        options = own.options or host.options
    search = own.search or host.search
    lines = [f"nameserver {server}" for server in servers]
    if search and search != (".",):
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def hosts(hostname: str, addresses: Iterable[str], extra: Iterable[str], gateway: str) -> str:
    """A container's hosts file. `gateway` stands for "host-gateway" in `extra` ("name:address")."""
    lines = [_LOCALHOST]
    for entry in extra:
        name, _, address = entry.partition(":")
        lines.append(f"{gateway if address == 'host-gateway' else address}\t{name}\n")
    if hostname:
        lines.extend(f"{address}\t{hostname}\n" for address in addresses)
    return "".join(lines)


def _loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False
