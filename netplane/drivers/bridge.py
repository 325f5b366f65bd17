"""Bridges: the default network, and those that users make."""

import hashlib
import ipaddress
from collections.abc import Collection, Mapping

from netplane import links
from netplane.bridge_options import MTU, NAME, read_options
from netplane.drivers import addressing
from netplane.drivers.driver import Draft
from netplane.errors import NetworkInUse
from netplane.model import LocalNetwork, Segment

PREFIX = "shb"
DEFAULT_DEVICE = "shoal0"


class Bridges:
    """A Linux bridge each, with the gateway's address on it."""

    def plan(self, draft: Draft) -> LocalNetwork:
        """Options, subnets, and the device's name."""
        spec = draft.spec
        options = read_options(spec.options or {}, internal=spec.internal)
        addressing.check_mtu(options.mtu, ipv6=spec.enable_ipv6)
        device = DEFAULT_DEVICE if draft.predefined else options.device or _device(draft.id)
        if not draft.predefined and device in links.list_links():
            raise NetworkInUse(f"a link named {device} already exists on this host")
        found = addressing.choose(draft, device=device if draft.predefined else "")
        return LocalNetwork(
            id=draft.id,
            name=spec.name,
            driver=draft.driver,
            created_at=draft.created_at,
            spec=spec,
            subnet=found.subnet,
            gateway=found.gateway,
            subnet6=found.subnet6,
            gateway6=found.gateway6,
            bridge=device,
            mtu=options.mtu,
            predefined=draft.predefined,
        )

    def open(self, network: LocalNetwork) -> Segment | None:
        """The bridge."""
        options = read_options(network.spec.options or {}, internal=network.internal)
        subnet = ipaddress.IPv4Network(network.subnet) if network.subnet else None
        subnet6 = ipaddress.IPv6Network(network.subnet6) if network.subnet6 else None
        reachable = options.address_on_bridge
        reachable6 = options.address6_on_bridge
        index = links.ensure_bridge(
            network.bridge,
            mac=addressing.mac_of(network.gateway, network.gateway6),
            mtu=network.mtu,
            address=f"{network.gateway}/{subnet.prefixlen}" if reachable and subnet else "",
            address6=f"{network.gateway6}/{subnet6.prefixlen}" if reachable6 and subnet6 else "",
        )
        return Segment(
            network_id=network.id,
            bridge=network.bridge,
            index=index,
            mtu=network.mtu,
            subnet=subnet,
            gateway=network.gateway if reachable else "",
            internal=network.internal,
            resolves_names=not network.predefined,
            subnet6=subnet6,
            gateway6=network.gateway6 if reachable6 else "",
            masquerade=options.masquerade,
            isolated=not options.containers_talk,
            host_address=options.host_address,
            interface_prefix=options.interface_prefix,
            gateway_mode=options.gateway_mode,
            gateway_mode6=options.gateway_mode6,
            trusted=options.trusted,
        )

    def check(self, segment: Segment) -> None:
        """A bridge that was made takes ports."""

    def close(self, network: LocalNetwork, others: Collection[LocalNetwork]) -> None:
        """Remove the bridge."""
        links.delete_links([network.bridge])

    def sweep(self, known: Collection[LocalNetwork]) -> None:
        """Bridges with made-up names that no network has."""
        wanted = {network.bridge for network in known}
        stale = [name for name in links.list_links() if name.startswith(PREFIX) and name not in wanted]
        if stale:
            links.delete_links(stale)

    def describe(self, network: LocalNetwork) -> Mapping[str, str]:
        """As asked; of the predefined one, all that holds."""
        if not network.predefined:
            return dict(network.spec.options or {})
        bridge = "com.docker.network.bridge."
        return {
            f"{bridge}default_bridge": "true",
            f"{bridge}enable_icc": "true",
            f"{bridge}enable_ip_masquerade": "true",
            f"{bridge}host_binding_ipv4": "0.0.0.0",
            NAME: network.bridge,
            MTU: str(network.mtu),
        }


def _device(network_id: str) -> str:
    return PREFIX + hashlib.blake2b(network_id.encode(), digest_size=5).hexdigest()
