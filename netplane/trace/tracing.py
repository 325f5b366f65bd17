"""`NetPlane.trace`: what this node knows, laid out for a walk. A part of the network plane."""

import asyncio
from collections.abc import Sequence

from netplane import doctor
from netplane.libnftables import LibNftables
from netplane.local_networks import LocalNetworks
from netplane.model import SandboxRecord, Segment
from netplane.names import Names
from netplane.overlay import Tunnel, device_names
from netplane.records import ClusterRecords
from netplane.trace.kernel import SystemKernel
from netplane.trace.model import Scene, Trace, parse_target
from netplane.trace.walk import trace


class Tracing:
    """A base of NetPlane, which makes what is declared here."""

    node_hostname: str
    _records: ClusterRecords
    _sandboxes: dict[str, SandboxRecord]
    _local: LocalNetworks
    _names: Names
    _tunnel: Tunnel | None
    _withdrawn: set[str]

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
            warnings=await asyncio.to_thread(_warnings),
            device_names=device_names,
        )
        return await trace(scene, SystemKernel(), source, target, protocol, probe=probe)


def _warnings() -> list[str]:
    rules = LibNftables()
    try:
        return doctor.warnings(rules)
    finally:
        rules.close()
