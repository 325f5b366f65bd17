"""Putting a running sandbox into a network and taking it out (`docker network connect` and `disconnect`)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from cluster.errors import Forbidden
from netplane import builder, links, planning, resolv
from netplane.balancers import Balancers
from netplane.dns.server import NameServers
from netplane.errors import NetworkNotFound, NotConnected
from netplane.host_ports import HostPorts
from netplane.local_networks import LocalNetworks
from netplane.model import Attachment, Interface, Mode, Sandbox, SandboxRecord, Segment
from netplane.names import Names
from netplane.site import Site
from netplane.storage import Storage

T = TypeVar("T")
Notice = Callable[[str, str, Mapping[str, str]], None]
"""Told of "create", "destroy", "connect", "disconnect": the network's id, its name and type, the sandbox."""

_ALONE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
_SHARED = "container sharing network namespace with another container or host can't be in other networks"


def ignore(action: str, network_id: str, attributes: Mapping[str, str]) -> None:
    """A Notice that tells nobody."""


class Attaching:
    """The base of NetPlane, which makes what is declared here."""

    notice: Notice
    _storage: Storage
    _local: LocalNetworks
    _lock: asyncio.Lock
    _sandboxes: dict[str, SandboxRecord]
    _building: dict[str, asyncio.Future[None]]
    _host_ports: HostPorts
    _handles: dict[str, builder.Handles]
    _names: Names
    _servers: NameServers
    _site: Site
    _balancers: Balancers

    async def _await_segment(self, network_id: str) -> Segment:
        raise NotImplementedError

    def _segment_of(self, interface: Interface) -> Segment | None:
        raise NotImplementedError

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        raise NotImplementedError

    def _serve_names(self, record: SandboxRecord, handles: builder.Handles) -> None:
        raise NotImplementedError

    def _segments(self) -> list[Segment]:
        raise NotImplementedError

    def _network_name(self, network_id: str) -> str:
        raise NotImplementedError

    async def _drop_unused(self, record: SandboxRecord) -> None:
        raise NotImplementedError

    async def attach(self, sandbox_id: str, attachment: Attachment) -> Sandbox:
        """Put a sandbox into one more network. On failure it is as it was.

        Raises NetworkNotFound, Forbidden if it is there already or its mode has no networks.
        """
        async with self._building_site(sandbox_id) as before:
            if before.spec.mode is not Mode.PRIVATE:
                raise Forbidden(_ALONE if before.spec.mode is Mode.NONE else _SHARED)
            segment = await self._await_segment(attachment.network_id)
            if segment.network_id in before.networks:
                raise Forbidden(
                    f"endpoint with name {sandbox_id[:12]} already exists in network {attachment.network_id}"
                )
            there = [self._segment_of(each) for each in before.interfaces]
            planning.check_apart([segment, *(each for each in there if each is not None)])
            path = before.sandbox.netns
            assert path is not None, "a private sandbox has a namespace"
            async with contextlib.AsyncExitStack() as undo:
                number = _free_number(before.interfaces)
                interface = planning.interface(sandbox_id, number, attachment, segment, self._local, undo)
                handles = self._handles[sandbox_id]
                opens = segment.resolves_names and not before.dns_port
                undo.push_async_callback(self._site.unplug, path, interface, before.interfaces)
                if opens:
                    undo.callback(handles.close)
                interfaces = (*before.interfaces, interface)
                await self._site.plug(path, interface, interfaces, segment, handles, open_sockets=opens)
                if segment.isolated:
                    await self._run(links.isolate_ports, [interface.port])
                attachments = (*before.spec.attachments, replace(attachment, network_id=segment.network_id))
                after = _changed(before, interfaces, attachments, handles)
                async with self._lock:
                    await self._run(self._balancers.change, before, after, handles)
                    self._change(before, after, handles)
                undo.pop_all()
            self._tell("connect", segment.network_id, sandbox_id)
            return after.sandbox

    async def detach(self, sandbox_id: str, network_id: str) -> Sandbox:
        """Take a sandbox out of a network. Raises NotConnected if it is not in it."""
        async with self._building_site(sandbox_id) as before:
            gone = next((each for each in before.interfaces if each.network_id == network_id), None)
            path = before.sandbox.netns
            if gone is None or path is None:
                raise NotConnected(sandbox_id, network_id)
            interfaces = tuple(each for each in before.interfaces if each is not gone)
            local = self._local.find(network_id)
            named = {network_id, *([local.name] if local is not None else [])}
            attachments = tuple(each for each in before.spec.attachments if each.network_id not in named)
            handles = self._handles[sandbox_id]
            after = _changed(before, interfaces, attachments, handles)
            async with self._lock:
                await self._run(self._balancers.change, before, after, handles)
                self._change(before, after, handles)
            await self._site.unplug(path, gone, interfaces)
            self._give_back(gone)
            self._names.forget([network_id])
            self._tell("disconnect", network_id, sandbox_id)
            await self._drop_unused(before)
            return after.sandbox

    def _tell(self, action: str, network_id: str, sandbox_id: str = "") -> None:
        local = self._local.find(network_id)
        told = {"name": self._network_name(network_id), "type": local.driver if local else "overlay"}
        if sandbox_id:
            told["container"] = sandbox_id
        self.notice(action, network_id, told)

    def _give_back(self, interface: Interface) -> None:
        """The addresses of an interface on a local network."""
        self._local.release(interface)

    def _change(self, before: SandboxRecord, after: SandboxRecord, handles: builder.Handles) -> None:
        self._storage.save_sandbox(after)
        self._sandboxes[after.sandbox.id] = after
        self._names.forget({*before.networks, *after.networks})
        if handles.dns_udp is not None:
            self._serve_names(after, handles)
        else:
            self._servers.reopen(after.sandbox.id, self._names.sight(after))

    @contextlib.asynccontextmanager
    async def _building_site(self, sandbox_id: str) -> "AsyncGenerator[SandboxRecord]":
        """A sandbox that nobody else changes meanwhile."""
        while sandbox_id in self._building:
            await asyncio.wait((self._building[sandbox_id],))
        record = self._sandboxes.get(sandbox_id)
        if record is None:
            raise NetworkNotFound(sandbox_id)
        building = self._building[sandbox_id] = asyncio.get_running_loop().create_future()
        try:
            yield record
        finally:
            del self._building[sandbox_id]
            building.set_result(None)


def _free_number(interfaces: Collection[Interface]) -> int:
    taken = {each.index - builder.FIRST_INDEX for each in interfaces}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _changed(
    before: SandboxRecord,
    interfaces: tuple[Interface, ...],
    attachments: Sequence[Attachment],
    handles: builder.Handles,
) -> SandboxRecord:
    host_dns = resolv.host_dns()
    spec = replace(before.spec, attachments=tuple(attachments))
    port = before.dns_port or builder.port_of(handles)
    path = before.sandbox.netns or Path()
    sandbox = planning.describe(spec, path, interfaces, before.sandbox.ports, host_dns, embedded=bool(port))
    return replace(
        before,
        spec=spec,
        sandbox=sandbox,
        interfaces=interfaces,
        dns_port=port,
        upstreams=before.upstreams or (resolv.upstreams(spec.dns, host_dns) if port else ()),
    )
