"""The host's own tables in the kernel: what they should hold, and what they are known to hold.

Each change is one transaction of its own size. After one that failed, and when somebody else took rules away,
the tables are written anew as a whole, in one transaction too: connections that exist go on, as connection
tracking remembers their translation. Runs in the plane's worker thread.
"""

import functools
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from netplane import gateway_modes, host_rules, port_rules
from netplane.errors import NetworkError
from netplane.host_rules import ADVERTISED, FAMILIES, LAYOUT, NOTHING, TABLE, Contents
from netplane.libnftables import Rules
from netplane.model import SandboxRecord, Segment, way_out, way_out6
from netplane.netlink import nft
from netplane.netlink.wire import NetlinkSocket
from netplane.overlay import device_names
from netplane.port_rules import PortKey, Published

Ports = Mapping[PortKey, Published]

log = logging.getLogger("shoal.netplane")

_CHAIN = re.compile(r"chain (port_(tcp|udp|sctp)_(\d+)) \{\n(.*?)\n\t\}", re.DOTALL)
_COUNTER = re.compile(r"counter (?:(isolated|to_host|spoofed)_)?(\S+) \{\s*packets (\d+) bytes (\d+)")


@dataclass(frozen=True)
class Drops:
    """Packets that were dropped, since their network came to this node or its rules were written anew."""

    isolated: int = 0  # from outside, or from or to a network that it is kept apart from
    to_host: int = 0  # to control ports, to addresses of other networks' bridges
    spoofed: int = 0  # with addresses that are not the sender's own


class HostTable:
    """See the module."""

    def __init__(self, rules: Rules, messages: NetlinkSocket, ports: Ports) -> None:
        """Args:
        rules, messages: two ways to the kernel's rules, by text and by messages.
        ports: the mesh's ports, as they are at any time.
        """
        self._rules = rules
        self._socket = messages
        self._ports = ports
        self._guard = True
        self._advertised = True  # guests' advertisements can be told apart
        self._segments: Sequence[Segment] = ()
        self._networks = NOTHING
        self._cluster = NOTHING
        self._nodes: tuple[frozenset[str], int] = frozenset(), 0
        self._control = NOTHING
        self._proxies: dict[str, int] = {}
        self._ports_known = False  # an earlier run's are kept until they are
        self._sandboxes: dict[str, SandboxRecord] = {}
        self._framed = False  # True once the kernel holds what is remembered here

    def start(self, segments: Collection[Segment], sandboxes: Iterable[SandboxRecord]) -> None:
        """Keep the tables of an earlier run, so that published ports go on until the records arrive. Those of
        another layout are replaced, and the ports that are open in them stay open."""
        self._sandboxes = {record.sandbox.id: record for record in sandboxes}
        self._segments = tuple(segments)
        try:
            self._rules.run(f"add table bridge {TABLE}\n")
        except NetworkError as error:
            self._guard = False
            log.warning("what containers send is not checked for addresses of others: %s", error)
        else:
            try:
                self._rules.run(host_rules.check_advertised())
            except NetworkError as error:
                self._advertised = False
                log.warning("containers' IPv6 neighbour advertisements are not checked: %s", error)
        try:
            for family in (*FAMILIES, "bridge") if self._guard else FAMILIES:
                self._rules.list(f"chain {family} {TABLE} {LAYOUT}")
        except NetworkError:
            self._write_whole()

    def apply(self, segments: Collection[Segment], changed: tuple[Ports, Ports] | None = None) -> None:
        """Bring networks and published ports in line.

        Args: changed: the mesh's ports that did, before and after; None: they are as they were, or not known
        yet, and then those of an earlier run stay.
        """
        if changed is not None and not self._ports_known:
            self._ports_known, self._framed = True, False
        networks = self._networks
        if tuple(segments) != self._segments:
            self._segments = tuple(segments)
            networks = host_rules.networks(segments, guard=self._guard)
        if not self._framed:
            self._write_whole()
            return
        commands = host_rules.change(self._networks, networks)
        self._networks = networks
        if changed is None or not any(changed):
            self._run(commands)
        elif commands or (messages := port_rules.rebalance(*changed)) is None:
            self._run(commands + port_rules.publish(*changed))
        else:
            self._guarded(functools.partial(nft.commit, self._socket, messages))

    def tell_cluster(self, nodes: Collection[str], tunnel_port: int) -> None:
        """Where the cluster's nodes are (data-path addresses); none: this node is in no cluster."""
        known = frozenset(nodes)
        if (known, tunnel_port) != self._nodes:
            self._nodes = known, tunnel_port
            before, self._cluster = self._cluster, host_rules.cluster(nodes, tunnel_port)
            self._change(before, self._cluster)

    def protect(self, control_ports: Iterable[int]) -> None:
        """Ports of this host, and of the nodes, that no container may connect to."""
        before, self._control = self._control, host_rules.control(control_ports)
        self._change(before, self._control)

    def _change(self, before: Contents, after: Contents) -> None:
        """What is remembered is `after` already: should this fail, all is written anew with it."""
        if self._framed:
            self._run(host_rules.change(before, after))

    def tell_proxies(self, ports: Mapping[str, int]) -> None:
        """Where the process for the PROXY protocol listens, by version; nowhere if there is none."""
        if dict(ports) != self._proxies:
            self._proxies = dict(ports)
            if self._framed:
                self._run(host_rules.proxies(ports))

    def restore(self) -> None:
        """Somebody else changed the tables: write them anew."""
        self._write_whole()

    # --- sandboxes ----------------------------------------------------------------------------------------

    def add(self, record: SandboxRecord) -> None:
        """Lead a sandbox's host ports to it, and let it send as itself only."""
        self._sandboxes[record.sandbox.id] = record
        self._run(host_rules.change(NOTHING, self._guests([record])) + _open(record))

    def remove(self, record: SandboxRecord) -> None:
        """Forget a sandbox and its host ports."""
        if self._sandboxes.pop(record.sandbox.id, None) is not None:
            self._run(host_rules.change(self._guests([record]), NOTHING) + _close(record))

    def change(self, before: SandboxRecord, after: SandboxRecord) -> None:
        """A sandbox is in other networks now."""
        self._sandboxes[after.sandbox.id] = after
        commands = host_rules.change(self._guests([before]), self._guests([after]))
        if entry(before) != entry(after):
            commands += _close(before) + _open(after)
        self._run(commands)

    # --- to look at ---------------------------------------------------------------------------------------

    def drops(self) -> tuple[dict[str, Drops], int]:
        """Packets dropped, by network; and frames of the cluster's networks that came from nowhere."""
        found: dict[tuple[str, str], int] = {}
        lost = 0
        for family in (*FAMILIES, "bridge") if self._guard else FAMILIES:
            for kind, name, packets, _ in _COUNTER.findall(
                self._rules.list(f"counters table {family} {TABLE}")
            ):
                if kind:
                    found[name, kind] = found.get((name, kind), 0) + int(packets)
                elif name == host_rules.LOST_TUNNEL:
                    lost = int(packets)
        return {
            segment.network_id: Drops(
                **{kind: found.get((segment.bridge, kind), 0) for kind in ("isolated", "to_host", "spoofed")}
            )
            for segment in self._segments
        }, lost

    # --- inner --------------------------------------------------------------------------------------------

    def _guests(self, records: Iterable[SandboxRecord]) -> Contents:
        """What sandboxes may send as in the cluster's networks. On a node's own bridges they may route for
        others, as they may with Docker."""
        if not self._guard:
            return NOTHING
        bridges = {
            segment.network_id: segment.bridge
            for segment in self._segments
            if segment.bridge == device_names(segment.network_id)[0]
        }
        interfaces = (each for record in records for each in record.interfaces if each.network_id in bridges)
        found = host_rules.guests(interfaces, bridges)
        if self._advertised:
            return found
        return Contents({place: held for place, held in found.elements.items() if place != ADVERTISED})

    def _run(self, commands: str) -> None:
        if commands:
            self._guarded(functools.partial(self._rules.run, commands))

    def _guarded(self, change: Callable[[], None]) -> None:
        try:
            change()
        except NetworkError as error:
            # Nothing of it was carried out. Somebody changed the tables, or an earlier run left other ones.
            log.warning("the host's rules: %s; writing them anew", error)
            self._write_whole()

    def _write_whole(self) -> None:
        self._framed = False
        carried = "" if self._ports_known else self._carried()
        self._networks = host_rules.networks(self._segments, guard=self._guard)
        guests = self._guests(self._sandboxes.values())
        commands = [
            host_rules.frame(guard=self._guard, advertised=self._advertised),
            host_rules.proxies(self._proxies),
        ]
        for contents in (self._networks, self._cluster, self._control, guests):
            commands.append(host_rules.change(NOTHING, contents))
        commands += [_open(record) for record in self._sandboxes.values()]
        commands.append(port_rules.publish({}, self._ports))
        try:
            self._rules.run("".join([*commands, carried]))
        except NetworkError as error:
            if not carried:
                raise
            log.warning("published ports are closed until the cluster's records are here: %s", error)
            carried = ""
            self._rules.run("".join(commands))
        # What was carried over is not known well enough to be changed: it is replaced with the first records.
        self._framed = not carried

    def _carried(self) -> str:
        """The commands that open the mesh's ports as the kernel has them open now."""
        commands = []
        for family in FAMILIES:
            try:
                table = self._rules.list(f"table {family} {TABLE}")
            except NetworkError:
                continue  # there is none
            for name, protocol, port, body in _CHAIN.findall(table):
                commands.append(f"add chain {family} {TABLE} {name}\n")
                for line in body.splitlines():
                    # nft prints a translation to addresses and ports in words that it does not read.
                    rule = line.strip().replace(f"dnat {family} to", f"dnat {family} addr . port to")
                    commands.append(f"add rule {family} {TABLE} {name} {rule}\n")
                element = f"{{ {protocol} . {port} : goto {name} }}"
                commands.append(f"add element {family} {TABLE} ports {element}\n")
        return "".join(commands)


def entry(record: SandboxRecord) -> tuple[str, str]:
    """The IPv4 and IPv6 address that a sandbox's host ports lead to: of the network that leads out, or ""."""
    leading, leading6 = way_out(record.interfaces), way_out6(record.interfaces)
    ports = [each for each in record.interfaces if not each.kind]  # others are not behind this host
    first = next((each.address for each in ports if each.address), "")
    first6 = next((each.address6 for each in ports if each.address6), "")
    own = leading.address if leading in ports else ""
    own6 = leading6.address6 if leading6 in ports else ""
    return (own if leading else first), (own6 if leading6 else first6)


def _open(record: SandboxRecord) -> str:
    ports = record.sandbox.ports
    addresses = gateway_modes.translated(record.interfaces, *entry(record))
    direct = gateway_modes.open_ports("add", record.interfaces, ports)
    return port_rules.open_host_ports(*addresses, ports) + direct


def _close(record: SandboxRecord) -> str:
    ports = record.sandbox.ports
    addresses = gateway_modes.translated(record.interfaces, *entry(record))
    direct = gateway_modes.open_ports("delete", record.interfaces, ports)
    return port_rules.close_host_ports(*addresses, ports) + direct
