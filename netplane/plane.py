"""The network plane of one node: local networks, overlays, sandboxes, published ports, names.

It is told what should be (records from the managers, sandboxes from the agent) and makes the kernel so. All
kernel work runs outside the event loop: a sandbox's in a thread of its own, the rest in one worker thread,
so that changes never interleave. `_lock` orders those that concern more than one sandbox.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from cluster.dataplane import NetworkRecord
from cluster.seams import Clock, Random, system_random
from netplane import builder, doctor, gateway_modes, links, netns, resolv, sysctl
from netplane.adoption import survivors
from netplane.attaching import ignore
from netplane.balancers import Balancers
from netplane.cluster_networks import ClusterNetworks
from netplane.dns.server import NameServers
from netplane.encryption import Encryption
from netplane.errors import (
    InvalidNetwork,
    NetworkError,
    NetworkNotFound,
    NetworkNotReady,
    NetworkUnfit,
    PortUnavailable,
)
from netplane.host_ports import HostPorts
from netplane.libnftables import LibNftables
from netplane.local_networks import LocalNetworks
from netplane.model import (
    HostPort,
    Interface,
    Mode,
    Sandbox,
    SandboxRecord,
    SandboxSpec,
    Segment,
    way_out,
)
from netplane.names import Names
from netplane.netlink.nft_events import RulesWatch, own_ports
from netplane.netlink.wire import NETFILTER, ROUTE, NetlinkSocket
from netplane.overlay import Overlays, Tunnel
from netplane.planning import describe, describe_plain, plan
from netplane.proxy_keeper import ProxyEnd, ProxyKeeper
from netplane.records import ClusterRecords, Touched
from netplane.site import Site
from netplane.storage import Storage
from netplane.trace.tracing import Tracing
from netplane.watching import HOST, Watching

log = logging.getLogger("shoal.netplane")

T = TypeVar("T")

# A sandbox may be asked for a moment before the records of its network arrive.
_NETWORK_PATIENCE = 5_000_000_000
_FRESH_SECONDS = 1.0


class NetPlane(ClusterNetworks, Tracing):
    """See the module. `bridge_subnet` ("a.b.c.d/prefix") fixes the default bridge's addresses."""

    def __init__(
        self,
        *,
        state_dir: Path,
        run_dir: Path,
        node_hostname: str,
        clock: Clock,
        rng: Random | None = None,
        bridge_subnet: str = "",
        spare: float = _FRESH_SECONDS,
        api_ports: Collection[int] = (),
        cgroup: str = "",
    ) -> None:
        """Args:
        spare: seconds for which a task that began to serve gets no connections, if others serve.
        api_ports: ports of this host that no container is to connect to.
        cgroup: that of all containers, for service addresses at connect(); "" leaves them to nftables.
        """
        self.spare = spare
        self.api_ports = api_ports
        self._cgroup = cgroup
        self.node_hostname = node_hostname
        self.notice = ignore
        self._clock = clock
        self._storage = Storage(state_dir, run_dir)
        self._keeper = ProxyKeeper(run_dir)
        self._proxy_end: ProxyEnd | None = None
        self._local = LocalNetworks(self._storage, clock, rng or system_random(), bridge_subnet)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="netplane")
        self._lock = asyncio.Lock()
        self._records = ClusterRecords()
        self._known = asyncio.Event()  # set, and replaced, whenever networks may have appeared
        self._touched = Touched()
        self._tunnel: Tunnel | None = None
        self._offered: dict[str, NetworkRecord] = {}
        self._sandboxes: dict[str, SandboxRecord] = {}
        self._building: dict[str, asyncio.Future[None]] = {}
        self._withdrawn: set[str] = set()  # task ids
        self._fresh: set[str] = set()  # task ids
        self._later: set[asyncio.Task[None]] = set()
        self._host_ports = HostPorts()
        self._handles: dict[str, builder.Handles] = {}
        self.encryption_changed = asyncio.Event()
        self._handshaking = asyncio.Event()
        self._names = Names(
            self._records, self._sandboxes, self._network_name, self._withdrawn, self._local.segments
        )
        self._servers = NameServers(self._names)
        self._watching = Watching(self._restore, self._look_around)
        self._warned: set[str] = set()

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what an earlier run left, or begin anew after a power loss."""
        await self._run(self._open)
        self._do_later(self._tend_tunnels())
        for record in await self._run(survivors, self._storage, self._host):
            await self._adopt_sandbox(record)
        for part in self._local.unused_parts(self._networks_in_use()):
            await self._run(self._local.remove, part.id)
        await self._run(self._balancers.start, self._segments(), self._sandboxes.values())
        await self._run(self._balancers.host.protect, self.api_ports)
        self._watch = await self._run(lambda: RulesWatch(own_ports()))
        self._watching.add(HOST, self._watch)
        await self._look_around()

    async def stop(self) -> None:
        """Let go. What is in the kernel stays, so containers keep their traffic; names are not served."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)
        async with self._lock:
            self._watch_proxy(stop=True)
            await self._watching.close()
            await self._servers.close_all()
            for handles in self._handles.values():
                handles.close()
            self._handles.clear()
            self._host_ports.close()
            await self._run(self._close)
        self._executor.shutdown()

    def _open(self) -> None:
        self._claim = netns.claim()
        self._storage.open()
        sysctl.prepare_host()
        self._host = NetlinkSocket(ROUTE)
        self._flows = NetlinkSocket(NETFILTER)
        self._rules = LibNftables()
        self._site = Site(self._host, self._segments)
        self._overlays = Overlays(self._host)
        self._encryption = Encryption(self._rules)
        self._encryption.open()
        self._balancers = Balancers(
            self._rules, self._flows, self._records, self._withdrawn, self._fresh, self._keeper, self._cgroup
        )
        self._local.open()

    def _close(self) -> None:
        self._balancers.connecting.close()
        self._keeper.forget()
        self._rules.close()
        self._host.close()
        self._flows.close()
        self._claim.close()

    async def _restore(self, sandbox_id: str) -> None:
        async with self._lock:
            # The library that writes the host's rules may have opened another socket meanwhile.
            await self._run(lambda: self._watch.leave_out(own_ports()))
            await self._run(self._balancers.restore, sandbox_id)
            # Who flushes one table mostly flushes all.
            if not sandbox_id and any(network.encrypted for network in self._records.networks.values()):
                await self._encrypt(self._encryption.look)

    async def _look_around(self) -> None:
        """Warn of what other people's rules drop, once for each."""
        found = set(await self._run(doctor.warnings, self._rules))
        for warning in sorted(found - self._warned):
            log.warning(warning)
        self._warned = found

    async def _adopt_sandbox(self, record: SandboxRecord) -> None:
        sandbox = record.sandbox
        for interface in record.interfaces:
            self._local.claim(interface)
        try:
            self._host_ports.reserve(
                sandbox.id, sandbox.ports, ipv6=any(each.address6 for each in record.interfaces)
            )
        except NetworkError as error:
            log.warning("sandbox %s: %s", sandbox.id, error)
        handles = builder.Handles()
        if sandbox.netns is not None and record.dns_port:
            handles = await netns.inside(
                sandbox.netns,
                functools.partial(builder.reopen, rules=True, name_server=True, port=record.dns_port),
            )
        moved = builder.port_of(handles) != record.dns_port
        record = replace(record, dns_port=builder.port_of(handles))
        self._balancers.adopt(record, handles, moved=moved)
        if moved:
            self._storage.save_sandbox(record)
        self._sandboxes[sandbox.id] = record
        self._handles[sandbox.id] = handles
        if handles.dns_udp is not None:
            self._serve_names(record, handles)

    # --- sandboxes ----------------------------------------------------------------------------------------

    def sandboxes(self) -> Mapping[str, Sandbox]:
        """Every sandbox by id."""
        return {sandbox_id: record.sandbox for sandbox_id, record in self._sandboxes.items()}

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox, or return the one that has this id. On failure nothing of it is left."""
        while spec.id in self._building:
            await asyncio.wait((self._building[spec.id],))
        if spec.id in self._sandboxes:
            return self._sandboxes[spec.id].sandbox
        building = self._building[spec.id] = asyncio.get_running_loop().create_future()
        try:
            return await self._create(spec)
        finally:
            del self._building[spec.id]
            building.set_result(None)

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        if "/" in spec.id or spec.id in ("", ".", ".."):
            raise InvalidNetwork(f"invalid sandbox id {spec.id!r}")
        host_dns = resolv.host_dns()
        async with contextlib.AsyncExitStack() as undo:
            if spec.mode is not Mode.PRIVATE:
                return await self._create_plain(spec, undo)
            segments = [await self._await_segment(each.network_id) for each in spec.attachments]
            interfaces = plan(spec, segments, self._local, undo)
            embedded = any(segment.resolves_names for segment in segments)
            by_id = {segment.network_id: segment for segment in segments}
            path = self._storage.netns(spec.id)
            handles = builder.Handles()
            undo.push_async_callback(self._site.demolish, path, interfaces)
            undo.callback(handles.close)
            await self._site.build(path, interfaces, by_id, handles, embedded=embedded)
            if isolated := [each.port for each in interfaces if by_id[each.network_id].isolated]:
                await self._run(links.isolate_ports, isolated)
            wanted = await self._run(_placed, _published(spec, interfaces, by_id))
            ports = self._host_ports.reserve(spec.id, wanted, ipv6=any(each.address6 for each in interfaces))
            undo.callback(self._host_ports.release, spec.id)
            sandbox = describe(spec, path, interfaces, ports, host_dns, embedded=embedded)
            record = SandboxRecord(
                spec=spec,
                sandbox=sandbox,
                interfaces=interfaces,
                dns_port=builder.port_of(handles),
                upstreams=resolv.upstreams(spec.dns, host_dns) if embedded else (),
            )
            if embedded or ports:
                async with self._lock:
                    undo.push_async_callback(self._run, self._balancers.remove, record)
                    await self._run(self._balancers.add, record, handles)
                    self._register(record, handles)
            else:
                self._register(record, handles)
            undo.pop_all()
        for network_id in record.networks:
            self._tell("connect", network_id, spec.id)
        return sandbox

    async def _create_plain(self, spec: SandboxSpec, undo: contextlib.AsyncExitStack) -> Sandbox:
        host_dns = resolv.host_dns()
        if spec.host_ports or spec.attachments:
            raise InvalidNetwork(f"network mode {spec.mode} takes neither networks nor host ports")
        path: Path | None = None
        if spec.mode is Mode.NONE:
            path = self._storage.netns(spec.id)
            undo.push_async_callback(self._site.demolish, path, ())
            await self._site.build(path, (), {}, builder.Handles(), embedded=False)
        sandbox = describe_plain(spec, path, host_dns)
        self._register(SandboxRecord(spec=spec, sandbox=sandbox), builder.Handles())
        undo.pop_all()
        return sandbox

    def _register(self, record: SandboxRecord, handles: builder.Handles) -> None:
        self._storage.save_sandbox(record)
        self._withdrawn.discard(record.spec.task_id)
        self._sandboxes[record.sandbox.id] = record
        self._handles[record.sandbox.id] = handles
        self._names.forget(record.networks)
        if handles.dns_udp is not None:
            self._serve_names(record, handles)

    def _serve_names(self, record: SandboxRecord, handles: builder.Handles) -> None:
        if (watch := handles.take_watch()) is not None:
            self._watching.add(record.sandbox.id, watch)
        udp, tcp = handles.take_name_server()
        self._servers.open(record.sandbox.id, udp, tcp, self._names.sight(record))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox with all that is its own. None there is no error."""
        while sandbox_id in self._building:
            await asyncio.wait((self._building[sandbox_id],))
        record = self._sandboxes.get(sandbox_id)
        if record is None:
            return
        building = self._building[sandbox_id] = asyncio.get_running_loop().create_future()
        try:
            try:
                if not self._records.networks.keys().isdisjoint(record.networks):
                    await self.withdraw(sandbox_id)
            except NetworkError as error:  # another sandbox's rules, say: this one goes all the same
                log.warning("sandbox %s is removed before it was withdrawn: %s", sandbox_id, error)
            self._watching.remove(sandbox_id)
            self._servers.close(sandbox_id)
            if record.dns_port or record.sandbox.ports:
                async with self._lock:
                    await self._run(self._balancers.remove, record)
            handles = self._handles.pop(sandbox_id, None)
            if handles is not None:
                handles.close()
            path = record.sandbox.netns
            if path is not None:
                await self._site.demolish(path, record.interfaces)
            self._host_ports.release(sandbox_id)
            self._storage.forget_sandbox(sandbox_id)
            del self._sandboxes[sandbox_id]
            for interface in record.interfaces:
                self._give_back(interface)
            self._names.forget(record.networks)
            for network_id in record.networks:
                self._tell("disconnect", network_id, sandbox_id)
            await self._drop_unused(record)
        finally:
            del self._building[sandbox_id]
            building.set_result(None)

    # --- inner --------------------------------------------------------------------------------------------

    def _segments(self) -> list[Segment]:
        return [*self._local.segments(), *self._overlays.segments()]

    def _segment_of(self, interface: Interface) -> Segment | None:
        return self._local.segment(interface.network_id) or self._overlays.segment(interface.network_id)

    def _networks_in_use(self) -> set[str]:
        return {network for record in self._sandboxes.values() for network in record.networks}

    def _network_name(self, network_id: str) -> str:
        record = self._records.networks.get(network_id)
        if record is not None:
            return record.name
        local = self._local.find(network_id)
        return local.name if local else network_id

    async def _await_segment(self, network_id: str) -> Segment:
        deadline = self._clock.monotonic() + _NETWORK_PATIENCE
        while True:
            known = self._records.networks.get(network_id)
            if (segment := await self._local_segment(network_id, known)) is not None:
                return segment
            overlay = self._overlays.segment(network_id)
            if overlay is not None and (overlay.gateway or not overlay.ingress):
                return overlay
            if self._overlays.objection(network_id):
                if objection := await self._retry(network_id):
                    raise NetworkUnfit(objection)
                continue
            if (local := self._local.find(network_id)) is not None:
                raise InvalidNetwork(f"network {local.name} takes no attachments; use its mode instead")
            if self._tunnel is None:
                raise NetworkNotFound(network_id)
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise NetworkNotReady(f"network {network_id} has not reached this node")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._known.wait(), left / 1e9)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        """Run kernel work in the worker thread, to its end even if the caller is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait((future,))
            raise


def _placed(ports: tuple[HostPort, ...]) -> tuple[HostPort, ...]:
    """The ports with an address of this host where they name places. Raises PortUnavailable."""
    found = []
    for port in ports:
        if port.at and not port.host_ip:
            address = links.address_at(port.at)
            if not address:
                raise PortUnavailable(
                    f"port {port.published}/{port.protocol} is to be open at {', '.join(port.at)}, "
                    "which this node has not"
                )
            port = replace(port, host_ip=address)
        found.append(port)
    return tuple(found)


def _published(
    spec: SandboxSpec, interfaces: Sequence[Interface], segments: Mapping[str, Segment]
) -> tuple[HostPort, ...]:
    """Host ports, with the address that the network of the way out gives to those that name none."""
    leading = way_out(interfaces)
    if (leading or interfaces[0]).kind if interfaces else False:
        return ()  # nothing of the host's is in the way of such a container; dockerd opens no ports either
    if leading is not None and gateway_modes.without_host_ports(leading):
        return tuple(replace(port, published=0, host_ip="", at=(), direct=True) for port in spec.host_ports)
    address = segments[leading.network_id].host_address if leading is not None else ""
    if not address:
        return spec.host_ports
    return tuple(
        port if port.host_ip or port.at else replace(port, host_ip=address) for port in spec.host_ports
    )
