"""Keeps the rules in line: the host's table, and the table of every sandbox that has one.

Runs in the plane's worker thread. What the kernel holds is remembered, so that each change costs its own
size; after an error it is written anew as a whole.
"""

import errno
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from netplane import host_rules, sandbox_rules
from netplane.builder import Handles
from netplane.errors import NetworkError
from netplane.host_rules import PortKey, Published
from netplane.libnftables import LibNftables
from netplane.model import SandboxRecord, Segment, way_out
from netplane.netlink import conntrack, nft
from netplane.netlink.wire import NetlinkError, NetlinkSocket
from netplane.records import ClusterRecords

log = logging.getLogger("shoal.netplane")

Vips = dict[str, tuple[str, ...]]


@dataclass
class _Inside:
    """A sandbox's table. `whole` is False while the kernel may hold something else."""

    record: SandboxRecord
    rules: NetlinkSocket
    whole: bool
    used_udp: bool = False  # before its table was last written anew


class Balancers:
    """See the module."""

    def __init__(
        self,
        rules: LibNftables,
        flows: NetlinkSocket,
        records: ClusterRecords,
        withdrawn: Collection[str],
        fresh: Collection[str],
    ) -> None:
        """Args: withdrawn, fresh: tasks that get no new connections; fresh ones do if there are no others."""
        self._rules = rules
        self._flows = flows
        self._records = records
        self._withdrawn = withdrawn
        self._fresh = fresh
        self._published: dict[PortKey, Published] = {}
        self._networks6 = ""
        self._framed = False  # True once the host's table is this run's
        self._vips: dict[str, Vips] = {}
        self._inside: dict[str, _Inside] = {}
        self._open: set[str] = set()  # sandboxes whose host ports lead to them

    def start(self, segments: Collection[Segment], sandboxes: Iterable[SandboxRecord]) -> None:
        """Keep the table of an earlier run, so that published ports go on until the records arrive."""
        try:
            self._rules.list(f"chain ip {host_rules.TABLE} {host_rules.LAYOUT}")
        except NetworkError:
            self.apply_host(segments, sandboxes)

    def backends(self) -> set[str]:
        """Every address that gets new connections."""
        found = {
            address for vips in self._vips.values() for backends in vips.values() for address in backends
        }
        for published in self._published.values():
            found.update(published.backends)
        return found

    # --- all ----------------------------------------------------------------------------------------------

    def apply(
        self, touched: Iterable[str], segments: Collection[Segment], sandboxes: Iterable[SandboxRecord]
    ) -> None:
        """Bring the host's table and every sandbox's in line with the records of the touched networks."""
        self.apply_host(segments, sandboxes)
        changes: dict[str, list[bytes]] = {}
        for network_id in touched:
            before = self._vips.get(network_id, {})
            after = self._records.vips(network_id, self._withdrawn, self._fresh)
            messages = sandbox_rules.balance(before, after)
            if messages:
                changes[network_id] = messages
            self._vips[network_id] = after
            if not after:
                del self._vips[network_id]
        failure: NetworkError | None = None
        for inside in self._inside.values():
            try:
                if not inside.whole:
                    self._write_whole(inside)
                    continue
                # One batch a network: the numbers of its maps are the batch's own.
                for network_id in inside.record.networks:
                    if network_id in changes:
                        self._write(inside, changes[network_id])
            except NetworkError as error:
                inside.whole = False
                failure = error
        if failure is not None:
            raise failure

    def apply_host(self, segments: Collection[Segment], sandboxes: Iterable[SandboxRecord]) -> None:
        """Bring the host's table in line."""
        published = self._records.published(self._withdrawn, self._fresh)
        if self._framed:
            commands = host_rules.networks(segments) + host_rules.publish(self._published, published)
        else:
            commands = host_rules.frame() + host_rules.networks(segments) + host_rules.publish({}, published)
            for record in sandboxes:
                if not _entry(record):
                    continue
                commands += host_rules.open_host_ports(_entry(record), record.sandbox.ports)
        try:
            self._rules.run(commands)
        except NetworkError:
            self._framed = False
            raise
        self._framed = True
        self._published = published
        networks6 = host_rules.networks6(segments)
        if networks6 != self._networks6:
            self._rules.run(networks6)
            self._networks6 = networks6

    def forget_udp(self, addresses: Collection[str]) -> None:
        """UDP flows to these addresses choose again; TCP connections may finish."""
        conntrack.forget_udp(self._flows, addresses)
        for inside in self._inside.values():
            if _uses_udp(inside):
                conntrack.forget_udp(inside.rules, addresses)

    def forget_unanswered(self, addresses: Collection[str]) -> None:
        """Connections through published ports that these addresses never answered choose again."""
        conntrack.forget_unanswered(self._flows, set(addresses) - self.backends())

    # --- one sandbox --------------------------------------------------------------------------------------

    def add(self, record: SandboxRecord, handles: Handles) -> None:
        """Write a new sandbox's table and lead its host ports to it."""
        if handles.rules is not None:
            inside = _Inside(record, handles.rules, whole=False)
            self._write_whole(inside)
            self._inside[record.sandbox.id] = inside
        if record.sandbox.ports and _entry(record):
            self._rules.run(host_rules.open_host_ports(_entry(record), record.sandbox.ports))
            self._open.add(record.sandbox.id)

    def adopt(self, record: SandboxRecord, handles: Handles, *, moved: bool) -> None:
        """Take over a sandbox of an earlier run; its table is written anew with the first records.

        At once if its name server `moved` to another port.
        """
        if record.sandbox.ports and _entry(record):
            self._open.add(record.sandbox.id)
        if handles.rules is not None:
            inside = self._inside[record.sandbox.id] = _Inside(record, handles.rules, whole=False)
            if moved:
                self._write_whole(inside)

    def remove(self, record: SandboxRecord) -> None:
        """Forget a sandbox, its host ports and the connections that it answers."""
        self._inside.pop(record.sandbox.id, None)
        if record.sandbox.id in self._open:
            self._open.discard(record.sandbox.id)
            try:
                self._rules.run(host_rules.close_host_ports(record.sandbox.ports))
            except NetworkError as error:
                log.warning("closing host ports of %s: %s", record.sandbox.id, error)
            conntrack.forget(self._flows, [_entry(record)])

    def change(self, before: SandboxRecord, after: SandboxRecord, handles: Handles) -> None:
        """A sandbox is in other networks now: its table follows, and its host ports lead to its way out."""
        inside = self._inside.get(after.sandbox.id)
        if inside is not None:
            inside.record = after
            self._write_whole(inside)
        elif handles.rules is not None:
            self._inside[after.sandbox.id] = inside = _Inside(after, handles.rules, whole=False)
            self._write_whole(inside)
        ports = after.sandbox.ports
        if not ports or _entry(before) == _entry(after):
            return
        if before.sandbox.id in self._open:
            self._rules.run(host_rules.close_host_ports(ports))
            self._open.discard(before.sandbox.id)
            conntrack.forget(self._flows, [_entry(before)])
        if _entry(after):
            self._rules.run(host_rules.open_host_ports(_entry(after), ports))
            self._open.add(after.sandbox.id)

    def _write_whole(self, inside: _Inside) -> None:
        vips: Vips = {}
        for network_id in inside.record.networks:
            vips.update(self._vips.get(network_id, {}))
        ingress = next((each for each in inside.record.interfaces if each.ingress), None)
        messages = sandbox_rules.whole(
            dns_port=inside.record.dns_port,
            mesh=(ingress.device, ingress.index) if ingress is not None else None,
            vips=vips,
        )
        inside.used_udp = _uses_udp(inside)
        nft.commit(inside.rules, messages)
        inside.whole = True

    def _write(self, inside: _Inside, messages: Sequence[bytes]) -> None:
        try:
            nft.commit(inside.rules, messages)
        except NetlinkError as error:
            # Someone inside changed the table, or an earlier change failed half-way: begin anew.
            log.warning("rules of sandbox %s: %s; writing them anew", inside.record.sandbox.id, error)
            inside.whole = False
            self._write_whole(inside)


def _uses_udp(inside: _Inside) -> bool:
    """True if the sandbox ever sent a datagram to a service's address."""
    try:
        return inside.used_udp or bool(
            nft.members(inside.rules, sandbox_rules.TABLE, sandbox_rules.USED_BY_UDP)
        )
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        return False  # it has no table yet


def _entry(record: SandboxRecord) -> str:
    """The address that a sandbox's host ports lead to: of the network that leads out."""
    interface = way_out(record.interfaces)
    if interface is not None:
        return interface.address
    return record.interfaces[0].address if record.interfaces else ""
