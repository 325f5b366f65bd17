"""What people look at: traces, and what this node knows of a network. A part of the network plane."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cluster.dataplane import EndpointRecord, ServiceRecord
from netplane import doctor
from netplane.balancers import Balancers
from netplane.dns.server import NameServers
from netplane.libnftables import LibNftables
from netplane.local_networks import LocalNetworks
from netplane.model import SandboxRecord, SandboxSpec, Segment
from netplane.names import Names
from netplane.overlay import Tunnel, device_names
from netplane.records import ClusterRecords
from netplane.trace.kernel import SystemKernel
from netplane.trace.model import Scene, Trace, parse_target
from netplane.trace.walk import trace

T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """A cluster network as this node knows it. `peers`: the nodes that have it, with their addresses;
    `addresses`: those of all nodes."""

    services: tuple[ServiceRecord, ...]
    endpoints: tuple[EndpointRecord, ...]
    peers: dict[str, str]
    addresses: dict[str, str]


class Tracing:
    """A base of NetPlane, which makes what is declared here."""

    node_hostname: str
    _records: ClusterRecords
    _sandboxes: dict[str, SandboxRecord]
    _local: LocalNetworks
    _names: Names
    _servers: NameServers
    _balancers: Balancers
    _tunnel: Tunnel | None
    _withdrawn: set[str]

    def known(self, network_id: str) -> Known | None:
        """What the managers told of a network; None if it is not one of the cluster's, or not known here."""
        record = self._records.networks.get(network_id)
        if record is None:
            return None
        endpoints = tuple(self._records.endpoints(network_id))
        there = {endpoint.node_id for endpoint in endpoints}
        addresses = {peer.node_id: peer.address for peer in self._records.peers.values()}
        peers = {each: ip for each, ip in addresses.items() if ip and (record.ingress or each in there)}
        return Known(tuple(self._records.services(network_id)), endpoints, peers, addresses)

    def asked(self) -> dict[str, int]:
        """Names that containers of this node asked for, by who answered."""
        return {"cluster": self._servers.answered, "others": self._servers.forwarded}

    def specs(self) -> dict[str, SandboxSpec]:
        """What each sandbox was asked to be, by id."""
        return {sandbox_id: record.spec for sandbox_id, record in self._sandboxes.items()}

    async def _at_connect(self, network_id: str, address: str) -> tuple[str, ...] | None:
        return await self._run(self._balancers.connecting.backends, network_id, address)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        raise NotImplementedError

    def _segments(self) -> Sequence[Segment]:
        raise NotImplementedError

    async def trace(
        self, source: str, destination: str, protocol: str = "tcp", *, probe: bool = False
    ) -> Trace:
        """Walk a packet's way from a container, task or service here, `host` or `outside`, and say where it
        stops. Changes nothing; `probe`: connects at last. Raises NotFound, InvalidNetwork."""
        target = parse_target(destination)
        scene = Scene(
            node=self.node_hostname,
            node_id=self._tunnel.node_id if self._tunnel is not None else "",
            tunnel_address=self._tunnel.address if self._tunnel is not None else "",
            records=self._records,
            sandboxes=self._sandboxes,
            segments={segment.network_id: segment for segment in self._segments()},
            local=self._local.all(),
            zone_of=self._names.zone,
            withdrawn=self._withdrawn,
            firewalls=await asyncio.to_thread(_firewalls),
            device_names=device_names,
        )
        return await trace(scene, SystemKernel(self._at_connect), source, target, protocol, probe=probe)


def _firewalls() -> list[doctor.Dropping]:
    rules = LibNftables()
    try:
        return doctor.dropping(rules)
    finally:
        rules.close()
