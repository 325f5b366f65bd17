"""Where a registry is reached: mirrors, HTTPS, and HTTP where the operator allows it."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from cluster.errors import InvalidArgument
from worker.images.reference import DEFAULT_DOMAIN

_DOCKER_HUB = "registry-1.docker.io"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A base URL without trailing slash; `verify` is whether its TLS certificate must be trusted."""

    url: str
    verify: bool = True
    mirror: bool = False


class Endpoints:
    """The daemon's registry settings: `--insecure-registry` hosts and CIDRs, `--registry-mirror` URLs."""

    def __init__(self, insecure: Iterable[str] = (), mirrors: Iterable[str] = ()) -> None:
        """Raises InvalidArgument for a setting that can't be meant."""
        self._hosts: set[str] = {"localhost", "[::1]"}
        self._networks: list[_Network] = [ipaddress.ip_network("127.0.0.0/8")]
        for entry in insecure:
            self._add_insecure(entry)
        self._mirrors = tuple(_mirror(url) for url in mirrors)

    def _add_insecure(self, entry: str) -> None:
        if "://" in entry or not entry:
            raise InvalidArgument(
                f"insecure registry {entry!r} must be host[:port] or a CIDR, without a scheme"
            )
        try:
            self._networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            if "/" in entry:
                raise InvalidArgument(f"insecure registry {entry!r} is neither a host nor a CIDR") from None
            self._hosts.add(entry.lower())

    def insecure(self, domain: str, addresses: Sequence[str] = ()) -> bool:
        """True when the registry may be spoken to without verified TLS.

        `addresses` are what its name resolves to; a CIDR holds for a name when any of them lies in it.
        """
        host = host_of(domain)
        if {domain.lower(), host.lower()} & self._hosts:
            return True
        candidates = [address for text in (host.strip("[]"), *addresses) if (address := _address(text))]
        return any(address in network for address in candidates for network in self._networks)

    @property
    def has_networks(self) -> bool:
        """True when a CIDR beyond loopback is configured, so that names are worth resolving."""
        return len(self._networks) > 1

    def lookup(self, domain: str, addresses: Sequence[str] = ()) -> list[Endpoint]:
        """The endpoints of a registry in the order they are to be tried."""
        if domain == DEFAULT_DOMAIN:
            mirrors = [
                Endpoint(url, verify=not self.insecure(urlsplit(url).netloc), mirror=True)
                for url in self._mirrors
            ]
            return [*mirrors, Endpoint(f"https://{_DOCKER_HUB}")]
        if self.insecure(domain, addresses):
            return [Endpoint(f"https://{domain}", verify=False), Endpoint(f"http://{domain}", verify=False)]
        return [Endpoint(f"https://{domain}")]

    @property
    def mirrors(self) -> tuple[str, ...]:
        """The mirrors of docker.io, for `docker info`."""
        return self._mirrors


def host_of(domain: str) -> str:
    """The host of `host[:port]`; an IPv6 address keeps its brackets."""
    if domain.startswith("["):
        return domain.partition("]")[0] + "]"
    return domain.partition(":")[0]


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _mirror(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
        raise InvalidArgument(f"registry mirror {url!r} must be a URL such as https://mirror.example.org")
    if parts.username is not None:
        raise InvalidArgument("a registry mirror's URL must not carry credentials")
    return url.rstrip("/")
