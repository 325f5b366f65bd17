"""Keeps the rules in line: the host's table, and the table of every sandbox that has one.

Runs in the plane's worker thread. What the kernel holds is remembered, so that each change costs its own
size; after an error it is written anew as a whole.
"""

import errno
import logging
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from netplane import sandbox_rules
from netplane.balanced import Balanced, Lost
from netplane.builder import Handles
from netplane.connecting import Connecting
from netplane.errors import NetworkError
from netplane.host_table import HostTable, entry
from netplane.libnftables import LibNftables
from netplane.model import SandboxRecord, Segment
from netplane.netlink import conntrack, nft
from netplane.netlink.wire import NetlinkError, NetlinkSocket
from netplane.proxy_keeper import ProxyKeeper
from netplane.records import ClusterRecords, Touched

log = logging.getLogger("shoal.netplane")

# A chain for a number of backends stays when no service has that number any more; a table that has gathered
# so many is written anew.
_MOST_CHAINS = 200


@dataclass
class _Inside:
    """A sandbox's tables. `whole` is False while the kernel may hold something else."""

    record: SandboxRecord
    rules: NetlinkSocket
    whole: bool
    chains: set[int] = field(default_factory=set)  # the numbers of backends that there is one for
    ipv6: bool = True  # there may be a table of IPv6
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
        keeper: ProxyKeeper,
        cgroup: str = "",
    ) -> None:
        """Args: withdrawn, fresh: tasks that get no new connections; fresh ones do if there are no others.
        cgroup: that of all containers, for what is done at connect()."""
        self._flows = flows
        self._balanced = Balanced(records, withdrawn, fresh)
        self._records = records
        self._subnets6: dict[str, str] = {}
        self.keeper = keeper
        self.host = HostTable(rules, flows, self._balanced.ports)
        self.connecting = Connecting(cgroup)
        self._inside: dict[str, _Inside] = {}

    def start(self, segments: Collection[Segment], sandboxes: Iterable[SandboxRecord]) -> None:
        """Keep the tables of an earlier run, so that published ports go on until the records arrive."""
        self.host.tell_proxies(self.keeper.found())
        self.host.start(segments, sandboxes)

    def take_lost(self) -> Lost:
        """The addresses that lost their new connections since this was last asked."""
        return self._balanced.take_lost()

    # --- all ----------------------------------------------------------------------------------------------

    def apply(self, touched: Touched, segments: Collection[Segment]) -> None:
        """Bring the host's table and every sandbox's in line with the records that were touched."""
        for network_id in touched.whole:
            self._take_subnet6(network_id)
        change = self._balanced.update(touched)
        failure: NetworkError | None = None
        try:
            self.mind_proxy()
        except NetworkError as error:
            failure = error
        try:
            self.host.apply(segments, change.ports)
        except NetworkError as error:
            failure = error
        if not self._proxied():
            self.keeper.release()
        messages = {
            network_id: sandbox_rules.balance(before, after, self._subnets6.get(network_id, ""))
            for network_id, (before, after) in change.vips.items()
        }
        self.connecting.update(change, self._balanced.vips, self._subnets6)
        sizes = {
            network_id: sandbox_rules.sizes_of([after]) for network_id, (_, after) in change.vips.items()
        }
        for inside in self._inside.values():
            networks = [each for each in inside.record.networks if messages.get(each)]
            try:
                if not inside.whole:
                    self._write_whole(inside)
                elif networks:
                    self._write(
                        inside,
                        set().union(*(sizes[each] for each in networks)),
                        [message for each in networks for message in messages[each]],
                    )
            except NetworkError as error:
                inside.whole = False
                failure = error
        if failure is not None:
            raise failure

    def mind_proxy(self) -> None:
        """Have the process for the PROXY protocol, if a published port needs it."""
        if self._proxied():
            self.host.tell_proxies(self.keeper.ensure())

    def _proxied(self) -> bool:
        return any(published.proxy for published in self._balanced.ports.values())

    def apply_host(self, segments: Collection[Segment]) -> None:
        """Bring the host's tables in line with the networks of this node."""
        self.host.apply(segments)

    def restore(self, sandbox_id: str) -> None:
        """Somebody else changed a sandbox's tables, or the host's (""): write them anew."""
        if not sandbox_id:
            self.host.restore()
        elif (inside := self._inside.get(sandbox_id)) is not None:
            inside.whole = False
            self._write_whole(inside)

    def _take_subnet6(self, network_id: str) -> None:
        network = self._records.networks.get(network_id)
        subnet6 = network.subnets6[0].subnet if network is not None and network.subnets6 else ""
        if subnet6 != self._subnets6.get(network_id, ""):
            self._subnets6[network_id] = subnet6
            self.connecting.write_anew()
            for inside in self._inside.values():
                if network_id in inside.record.networks:
                    inside.whole = False
        if not subnet6:
            self._subnets6.pop(network_id, None)

    def forget_udp(self, lost: Lost) -> None:
        """UDP flows to these addresses choose again; TCP connections may finish."""
        conntrack.forget_udp(self._flows, self._both(lost.published_udp))
        for inside in self._inside.values() if lost.addresses else ():
            if _uses_udp(inside):
                conntrack.forget_udp(inside.rules, self._both(lost.addresses))

    def forget_unanswered(self, lost: Lost) -> None:
        """Connections that these addresses never answered choose again."""
        gone = {each for each in lost.addresses if not self._balanced.leads_to(each)}
        conntrack.forget_unanswered(self._flows, self._both(gone & lost.published))
        if addresses := self._both(gone):
            for inside in self._inside.values():
                conntrack.forget_unanswered(inside.rules, addresses)

    def _both(self, addresses: Collection[str]) -> set[str]:
        """Addresses, and those of IPv6 that go with them in whichever network they are."""
        prefixes = {sandbox_rules.prefix_of(subnet6) for subnet6 in self._subnets6.values()}
        return {
            *addresses,
            *(
                socket.inet_ntop(socket.AF_INET6, prefix + socket.inet_aton(address))
                for prefix in prefixes
                for address in addresses
            ),
        }

    # --- one sandbox --------------------------------------------------------------------------------------

    def add(self, record: SandboxRecord, handles: Handles) -> None:
        """Write a new sandbox's table and lead its host ports to it."""
        if handles.rules is not None:
            inside = _Inside(record, handles.rules, whole=False)
            self._write_whole(inside)
            self._inside[record.sandbox.id] = inside
            self.connecting.enter(record, handles.rules)
        self.host.add(record)

    def adopt(self, record: SandboxRecord, handles: Handles, *, moved: bool) -> None:
        """Take over a sandbox of an earlier run; its table is written anew with the first records.

        At once if its name server `moved` to another port.
        """
        if handles.rules is not None:
            inside = self._inside[record.sandbox.id] = _Inside(record, handles.rules, whole=False)
            self.connecting.enter(record, handles.rules)
            if moved:
                self._write_whole(inside)

    def remove(self, record: SandboxRecord) -> None:
        """Forget a sandbox, its host ports and the connections that it answers."""
        self._inside.pop(record.sandbox.id, None)
        self.connecting.forget(record.sandbox.id)
        try:
            self.host.remove(record)
        except NetworkError as error:
            log.warning("forgetting %s in the host's rules: %s", record.sandbox.id, error)
        if record.sandbox.ports:
            conntrack.forget(self._flows, [each for each in entry(record) if each])

    def change(self, before: SandboxRecord, after: SandboxRecord, handles: Handles) -> None:
        """A sandbox is in other networks now: its table follows, and its host ports lead to its way out."""
        inside = self._inside.get(after.sandbox.id)
        if inside is not None:
            inside.record = after
            self._write_whole(inside)
        elif handles.rules is not None:
            self._inside[after.sandbox.id] = inside = _Inside(after, handles.rules, whole=False)
            self._write_whole(inside)
        if inside is not None:
            self.connecting.enter(after, inside.rules)
        self.host.change(before, after)
        if after.sandbox.ports:
            conntrack.forget(
                self._flows, [each for each in set(entry(before)).difference(entry(after)) if each]
            )

    def _write_whole(self, inside: _Inside) -> None:
        networks = [
            (self._balanced.vips.get(each, {}), self._subnets6.get(each, ""))
            for each in inside.record.networks
        ]
        ingress = next((each for each in inside.record.interfaces if each.ingress), None)
        messages = sandbox_rules.whole(
            dns_port=inside.record.dns_port,
            mesh=(ingress.device, ingress.index) if ingress is not None else None,
            networks=networks,
            had_ipv6=inside.ipv6,
        )
        inside.used_udp = _uses_udp(inside)
        nft.commit(inside.rules, messages)
        inside.chains = sandbox_rules.sizes_of(vips for vips, _ in networks)
        inside.ipv6 = any(subnet6 for _, subnet6 in networks)
        inside.whole = True

    def _write(self, inside: _Inside, sizes: set[int], messages: Sequence[bytes]) -> None:
        try:
            if new := sizes - inside.chains:
                if len(inside.chains | new) > _MOST_CHAINS:
                    self._write_whole(inside)
                    return
                nft.commit(inside.rules, sandbox_rules.spread(new, ipv6=inside.ipv6))
                inside.chains |= new
            nft.commit(inside.rules, messages)
        except NetlinkError as error:
            # Someone inside changed the table, or an earlier change failed half-way: begin anew.
            log.warning("rules of sandbox %s: %s; writing them anew", inside.record.sandbox.id, error)
            inside.whole = False
            self._write_whole(inside)


def _uses_udp(inside: _Inside) -> bool:
    """True if the sandbox ever sent a datagram to a service's address."""
    try:
        return inside.used_udp or any(
            nft.members(inside.rules, sandbox_rules.TABLE, sandbox_rules.USED_BY_UDP, family)
            for family in ((nft.IP, nft.IP6) if inside.ipv6 else (nft.IP,))
        )
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        return False  # it has no table yet
