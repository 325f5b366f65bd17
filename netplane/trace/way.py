"""From a source to one address: devices, tunnel, node, and whether somebody listens there."""

from collections.abc import Mapping

from cluster.dataplane import EndpointRecord
from netplane.links import VXLAN_OVERHEAD, Link
from netplane.model import Interface, LocalNetwork, SandboxRecord, way_out, way_out6
from netplane.names import served_networks
from netplane.records import bare
from netplane.trace import firewalls, wire
from netplane.trace.model import Target, listens, within
from netplane.trace.progress import Walk
from netplane.trace.source import Source


class Way:
    """The way of one source; what it has already seen of its own devices is not told twice."""

    def __init__(self, walk: Walk, source: Source) -> None:
        self._walk = walk
        self._source = source
        self._left: set[str] = set()

    async def to(self, address: str, port: int = 0) -> None:
        """Walk to an address. Args: port: there, if it is another than the target's."""
        walk, scene = self._walk, self._walk.scene
        for network_id in self._networks():
            on_wire = wire.wire_of(scene, (network_id,), address)
            if on_wire is not None:
                await self._on_wire(on_wire, address, port or walk.target.port)
                return
            segment, record = scene.segments.get(network_id), scene.records.networks.get(network_id)
            subnets = [str(each) for each, _ in segment.subnets] if segment is not None else []
            if segment is not None and segment.subnet6 is not None:
                subnets.append(str(segment.subnet6))
            if record is not None:
                subnets += [each.subnet for each in (*record.subnets, *record.subnets6)]
            if any(within(address, subnet) for subnet in subnets):
                await self._in_network(network_id, address, port or walk.target.port)
                return
        await self._outwards(address)

    def _networks(self) -> tuple[str, ...]:
        source = self._source
        if source.sandbox is None and source.elsewhere is None:
            return (*self._walk.scene.segments, *self._walk.scene.local)
        return source.networks

    # --- inside one network -------------------------------------------------------------------------------

    async def _in_network(self, network_id: str, address: str, port: int) -> None:
        walk, scene = self._walk, self._walk.scene
        segment, record = scene.segments.get(network_id), scene.records.networks.get(network_id)
        name = scene.network_name(network_id)
        links = await walk.kernel.links()
        interface = self._interface(network_id)
        if interface is not None and not self._leaves(links, interface, network_id):
            return
        resident = self._resident(network_id, address)
        endpoint = scene.endpoint(network_id, address)
        if resident is not None:
            other, end = resident
            isolated = segment is not None and segment.isolated
            if isolated and self._source.sandbox is not None and other is not self._source.sandbox:
                walk.bad(
                    "way",
                    f"containers of network {name} don't reach each other (enable_icc=false)",
                    "make the network without that option, or publish the port",
                )
                return
            link = links.get(end.port)
            if end.port and (link is None or not link.up):
                walk.bad(
                    "way", f"{address} is {scene.title(other)} on this node, whose port {end.port} is "
                    + ("gone" if link is None else "down"), "restart the container",
                )  # fmt: skip
                return
            bridge = segment.bridge if segment is not None else "?"
            walk.good(
                "way", f"{address} is {scene.title(other)} on this node: {bridge} → {end.port or end.device}"
            )
            await self._arrive(other, endpoint, address, port)
        elif endpoint is not None and record is not None:
            await self._through_tunnel(network_id, endpoint, address, links, port)
        elif segment is not None and address in (segment.gateway, segment.gateway6):
            walk.good("way", f"{address} is network {name}'s gateway, which is this node itself")
        else:
            walk.bad(
                "way",
                f"nobody has {address} in network {name}, as far as this node knows",
                "the task may be gone: use its service's name instead of an address",
            )

    async def _on_wire(self, network: LocalNetwork, address: str, port: int) -> None:
        walk, scene = self._walk, self._walk.scene
        links = await walk.kernel.links()
        if not wire.leaves(walk, self._interface(network.id), links, network):
            return
        resident = self._resident(network.id, address)
        endpoint = scene.endpoint(network.id, address)
        if resident is not None:
            if wire.meets(walk, self._source, resident[0], network, address):
                await self._arrive(resident[0], endpoint, address, port)
        elif endpoint is not None:
            await self._through_tunnel(network.id, endpoint, address, links, port)
        else:
            wire.unknown(walk, network, address)

    def _resident(self, network_id: str, address: str) -> tuple[SandboxRecord, Interface] | None:
        """The sandbox of this node that has an address."""
        return next(
            (
                (each, end)
                for each in self._walk.scene.sandboxes.values()
                for end in each.interfaces
                if end.network_id == network_id and address in (end.address, end.address6)
            ),
            None,
        )

    def _interface(self, network_id: str) -> Interface | None:
        sandbox = self._source.sandbox
        if sandbox is None or network_id in self._left:
            return None
        self._left.add(network_id)
        return next((each for each in sandbox.interfaces if each.network_id == network_id), None)

    def _leaves(self, links: Mapping[str, Link], interface: Interface, network_id: str) -> bool:
        walk = self._walk
        segment = walk.scene.segments.get(network_id)
        bridge = segment.bridge if segment is not None else ""
        for name in filter(None, (interface.port, bridge)):
            link = links.get(name)
            if link is None or not link.up:
                walk.bad(
                    "way",
                    f"the link {name}, by which packets leave, is {'gone' if link is None else 'down'}",
                    "restart the container; if it stays so, restart shoald on this node",
                )
                return False
        walk.good(
            "way",
            " → ".join(filter(None, (interface.device, interface.port, bridge)))
            + f" on this node (MTU {interface.mtu})",
        )
        return True

    async def _through_tunnel(
        self,
        network_id: str,
        endpoint: EndpointRecord,
        address: str,
        links: Mapping[str, Link],
        port: int,
    ) -> None:
        walk, scene = self._walk, self._walk.scene
        title = f"{address} is {endpoint.task_name} on node {endpoint.node_id}"
        if endpoint.node_id == scene.node_id:
            walk.bad(
                "way",
                f"{address} belongs to {endpoint.task_name} of this node, which has no container at present",
                f"see `shoal task explain {endpoint.task_name}`",
            )
            return
        peer = scene.records.peers.get(endpoint.node_id)
        if peer is None or not peer.address:
            walk.bad("way", f"{title}, whose address this node does not know", "see `docker node ls`")
            return
        record = scene.records.networks[network_id]
        if record.driver != "overlay":
            walk.good("way", f"{title} ({peer.address}), on the wire of this node's network {record.name}")
            self._serves(endpoint, address, port, endpoint.task_name)
            return
        _, vxlan = scene.device_names(network_id)
        link = links.get(vxlan)
        if link is None or not link.up:
            walk.bad(
                "way",
                f"{title}, but this node's tunnel device {vxlan} is {'gone' if link is None else 'down'}",
                "restart shoald on this node, and see its log",
            )
            return
        held = await walk.kernel.tunnels(link.index)
        key = bare(endpoint.address)  # IPv4 and IPv6 address have one MAC
        end = scene.records.place(network_id, key, scene.node_id) or peer.address
        if held.get(key) != end:
            told = f"sends it to {held[key]}" if key in held else "does not know it"
            walk.bad(
                "way",
                f"{title} ({end}), but the tunnel device {vxlan} {told}",
                "the next change corrects it; if it stays, see the log of shoald on this node",
            )
            return
        carrier = await walk.kernel.mtu_of(scene.tunnel_address)
        if link.mtu + VXLAN_OVERHEAD > carrier:
            walk.bad(
                "way",
                f"{title}; packets of up to {link.mtu} bytes and the tunnel's {VXLAN_OVERHEAD} don't fit the "
                f"link of {scene.tunnel_address} (MTU {carrier}): small ones pass, large ones don't",
                f"make the network anew with --opt com.docker.network.driver.mtu={carrier - VXLAN_OVERHEAD}",
            )
            return
        by = f", encrypted, to {peer.address}" if end != peer.address else ""
        walk.good("way", f"{title}: {vxlan} (VNI {record.vni}, MTU {link.mtu}) → {end}" + by)
        if peer.silent:
            walk.bad(
                "way",
                f"node {endpoint.node_id} ({peer.address}) was not heard of lately",
                "see `docker node ls`, and whether it can be reached",
            )
            return
        if firewalls.lets_in(walk, peer.address, "what other nodes send on the data path"):
            self._serves(endpoint, address, port)

    def _serves(self, endpoint: EndpointRecord, address: str, port: int, from_there: str = "host") -> None:
        """As far as is known here of a task elsewhere. `from_there`: who reaches it on its node."""
        walk = self._walk
        if not endpoint.serving:
            walk.bad(
                "arrival",
                f"{endpoint.task_name} takes no new connections: it starts, is not healthy, or stops",
                f"see `shoal task explain {endpoint.task_name}`",
            )
            return
        what = f"port {port} is listened on" if port else "it answers"
        command = f"shoal network trace {from_there} {Target(address, port)}"
        walk.unchecked(
            "arrival",
            f"whether {what}, which its node knows: there, `{command}`",
            f"{endpoint.task_name} serves",
        )

    # --- outwards -----------------------------------------------------------------------------------------

    async def _outwards(self, address: str) -> None:
        walk, scene = self._walk, self._walk.scene
        foreign = [
            network_id
            for network_id in {*scene.records.networks, *scene.local}
            if network_id not in self._networks() and self._has(network_id, address)
        ]
        if foreign:
            name = scene.network_name(foreign[0])
            walk.bad(
                "way",
                f"{address} is in network {name}, {self._source.title} in {scene.names(self._networks())}: "
                "networks don't reach each other",
                f"put both into one network, for example `docker network connect {name} CONTAINER`",
            )
            return
        sandbox = self._source.sandbox
        if sandbox is None:
            whose = "its" if self._source.elsewhere is not None else "this"
            walk.unchecked(
                "way",
                "what lies behind, which is outside what Shoal knows",
                f"{address} is in no network of Shoal's: {whose} node's routes decide",
            )
            return
        leading = (way_out6 if ":" in address else way_out)(sandbox.interfaces)
        if leading is None:
            networks = scene.names(served_networks(sandbox))
            walk.bad(
                "way",
                f"{address} is outside, and nothing leads out of {networks}",
                "they are internal"
                + (" or have no IPv6" if ":" in address else "")
                + ": add a network that is not",
            )
            return
        local = scene.local.get(leading.network_id)
        gateway = leading.gateway6 if ":" in address else leading.gateway
        if leading.kind and local is not None:  # nothing of this host's is in its way
            walk.unchecked(
                "way",
                "what lies behind, which is outside what Shoal knows",
                f"{address} is outside: {leading.device} → this node's {local.parent}"
                + (f" → router {gateway} of that wire" if gateway else ""),
            )
            return
        if not firewalls.forwards(walk, "way", address):
            return
        walk.unchecked(
            "way",
            "what lies behind, which is outside what Shoal knows",
            f"{address} is outside: {leading.device} → gateway {gateway} of network "
            f"{scene.network_name(leading.network_id)} → this node's routes",
        )

    def _has(self, network_id: str, address: str) -> bool:
        scene = self._walk.scene
        record, local = scene.records.networks.get(network_id), scene.local.get(network_id)
        subnets = [each.subnet for each in (*record.subnets, *record.subnets6)] if record is not None else []
        if local is not None:
            subnets += [local.subnet, local.subnet6]
        if wire.wire_of(scene, (network_id,), address) is not None:
            # The wire is the host's too: routes lead there, but to no container of this node.
            return self._resident(network_id, address) is not None
        return any(within(address, each) for each in subnets if each)

    # --- arrival ------------------------------------------------------------------------------------------

    async def _arrive(
        self, other: SandboxRecord, endpoint: EndpointRecord | None, address: str, port: int
    ) -> None:
        walk, title = self._walk, self._walk.scene.title(other)
        if endpoint is not None and endpoint.service_id and not endpoint.serving:
            walk.bad(
                "arrival",
                f"{title} takes no new connections: it starts, is not healthy, or stops",
                f"see `shoal task explain {title}`",
            )
            return
        if not port:
            walk.unchecked("arrival", "whether it listens: give a port to see that", f"{title} is there")
            return
        found = await walk.kernel.listening(other.sandbox.netns, walk.protocol, port)
        where = f"port {port}/{walk.protocol}"
        if found is None:
            walk.unchecked("arrival", f"whether {title} listens on {where}: this kernel does not tell")
        elif listens(found, address):
            walk.good("arrival", f"{title} listens on {where}")
        elif found:
            every = "[::]" if ":" in address else "0.0.0.0"
            walk.bad(
                "arrival",
                f"{title} listens on {where} only at {', '.join(sorted(found))}, not at {address}",
                f"make the program listen on all addresses, {every} too",
            )
        else:
            walk.bad(
                "arrival",
                f"nothing listens on {where} in {title}: connections are refused",
                f"see its log (`docker logs {other.sandbox.id[:12]}`) and which port the program uses",
            )
