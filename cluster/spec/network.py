"""Networks and their address management."""

import msgspec

from cluster.spec.base import Labels, Spec


class IPAMConfig(Spec, frozen=True):
    """One subnet of a network, in CIDR; the rest by the allocator when empty."""

    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = msgspec.field(default=None, name="AuxiliaryAddresses")


class IPAM(Spec, frozen=True):
    """Address management of a network."""

    driver: str = ""
    config: list[IPAMConfig] | None = None
    options: dict[str, str] | None = None


class NetworkReference(Spec, frozen=True):
    """The config-only network that another takes its settings from."""

    network: str = ""


class NetworkSpec(Spec, frozen=True):
    """A network as the user wants it (POST /networks/create)."""

    name: str = ""
    labels: Labels | None = None
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: NetworkReference | None = None
    ipam: IPAM | None = None
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool = False
    options: dict[str, str] | None = None
