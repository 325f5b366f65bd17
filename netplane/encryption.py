"""Encrypted networks on this node: a WireGuard device for each epoch of keys, and which one leads to whom.

The managers say which epochs are in force, the records which key each node has in each. A node receives on
all of them; to each peer it sends by the newest in which the two have shaken hands. So keys are rotated
without a lost packet: a new device comes beside the old one, each pair of nodes moves over by itself, and
when all have, the managers take the old epoch out of force.

What can't be encrypted is not sent: see `netplane.tunnel_links` and `netplane.encryption_rules`. A device
that vanished (its wireguard-go was killed) is made anew, with a new key.
"""

import hashlib
import logging
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cluster.dataplane import PeerRecord
from cluster.encryption import OVERHEAD, tunnel_address, tunnel_port
from cluster.objects import NodeEncryption
from netplane import encryption_rules, tunnel_links, wireguard
from netplane.errors import NetworkError
from netplane.records import ClusterRecords
from netplane.wireguard import Device, Method, Peer

log = logging.getLogger("shoal.netplane")

_COUNTED = re.compile(r"packets \d+ bytes \d+")


class Rules(Protocol):
    """The host's rules."""

    def run(self, commands: str) -> None:
        """Carry out nft commands. Raises NetworkError."""

    def list(self, what: str) -> str:
        """What nft lists. Raises NetworkError when there is no such thing."""


@dataclass(frozen=True)
class End:
    """This node's end of its tunnels: its id, VXLAN's UDP port, and the MTU of the link that carries them."""

    node_id: str
    port: int
    mtu: int


@dataclass
class _Epoch:
    """An epoch's device."""

    name: str
    method: Method
    index: int = 0
    seen: Device = field(default_factory=lambda: Device(b"", 0))
    told: dict[bytes, Peer] = field(default_factory=dict)


def device_name(node_id: str, epoch: int) -> str:
    """The name of an epoch's device. wireguard-go's are unique on a machine, whatever namespaces it has."""
    node = hashlib.blake2b(node_id.encode(), digest_size=3).hexdigest()
    return f"{tunnel_links.PREFIX}{node}e{epoch % 100000}"


def choose(common: Collection[int], shaken: Collection[int], current: int | None) -> int | None:
    """The epoch by which to send to a peer: of those that both have, the newest with a handshake; without
    any, the one in use, or else the newest, whose handshake the first packet begins and waits for."""
    if met := set(common).intersection(shaken):
        return max(met)
    return current if current in common else max(common, default=None)


class Encryption:
    """The tunnels. Its methods touch the kernel: run them in a thread, one at a time."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._epochs: dict[int, _Epoch] = {}
        self._leading: dict[str, int] = {}  # node id → epoch by which we send to it
        self._table = self._listed = ""
        self._active: bool | None = None
        self._trouble = ""
        self.method: Method | None = None
        self.pending = False
        """Whether a handshake is being waited for."""
        self.report = NodeEncryption()
        """What the managers should know."""

    def open(self) -> None:
        """Find out how this machine can encrypt."""
        self.method, reason = wireguard.find_method()
        self._tell(reason)

    def apply(self, end: End, records: ClusterRecords, remaining: Iterable[int]) -> None:
        """Bring devices, peers, routes and rules in line with the records; `remaining`: VXLAN identifiers of
        encrypted networks that are no longer known, but still here.

        What fails is told to the managers and tried again by `look`: it must not keep the node from the rest.
        """
        wanted = {each.vni for each in records.networks.values() if each.encrypted and each.key_epochs}
        vnis = wanted.union(remaining)
        try:
            if not vnis:
                self.release()
                self._tell()
                return
            if self.method is None:
                raise NetworkError(self.report.trouble or "this node has no WireGuard")
            self._activate(end, vnis)
            if wanted:
                self._settle(self.method, end, records)
        except (NetworkError, OSError, subprocess.SubprocessError) as error:
            if str(error) != self._trouble:
                log.error("networks are not encrypted, and cut off, for now: %s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""
        self._tell()

    def look(self, end: End, records: ClusterRecords, remaining: Iterable[int]) -> None:
        """See what the devices did by themselves meanwhile, and go on from there."""
        if self.method is None:
            self.open()
        if self._active:
            try:
                self._find(tunnel_links.present())
                self._check_table()
            except (NetworkError, OSError) as error:
                log.warning("looking at the tunnels: %s", error)
        if self._active or any(each.encrypted for each in records.networks.values()):
            self.apply(end, records, remaining)

    def release(self) -> None:
        """Remove everything: no encrypted network is here any more."""
        if self._active is False:
            return
        for name in tunnel_links.present():
            tunnel_links.delete(name)
        for address in tunnel_links.routes():
            tunnel_links.forget(address)
        tunnel_links.refuse_rest(refuse=False)
        self._rules.run(encryption_rules.remove())
        self._epochs.clear()
        self._leading.clear()
        self._table = self._trouble = ""
        self._active = self.pending = False

    # --- inner --------------------------------------------------------------------------------------------

    def _activate(self, end: End, vnis: Iterable[int]) -> None:
        """Before any device: what has no tunnel goes nowhere."""
        table = encryption_rules.table(end.port, vnis)
        if table != self._table:
            self._rules.run(table)
            self._table, self._listed = table, self._list()
        if not self._active:
            tunnel_links.refuse_rest(refuse=True)
            self._active = True

    def _check_table(self) -> None:
        if self._table and self._list() != self._listed:
            log.warning("the rules of encrypted networks were changed by others: putting them back")
            self._rules.run(self._table)
            self._listed = self._list()
            tunnel_links.refuse_rest(refuse=True)

    def _list(self) -> str:
        try:
            return _COUNTED.sub("", self._rules.list(f"table {encryption_rules.TABLE}"))
        except NetworkError:
            return ""

    def _find(self, present: Mapping[str, tuple[int, str]]) -> None:
        """Read the devices; forget those that vanished, or do not answer."""
        for number, epoch in list(self._epochs.items()):
            try:
                if present.get(epoch.name, (0, ""))[0] != epoch.index:
                    raise NetworkError("it is gone")
                epoch.seen = epoch.method.read(epoch.name)
            except NetworkError as error:
                log.error("WireGuard device %s is to be made anew: %s", epoch.name, error)
                del self._epochs[number]

    def _settle(self, method: Method, end: End, records: ClusterRecords) -> None:
        epochs = max(each.key_epochs for each in records.networks.values() if each.encrypted)
        wanted = {device_name(end.node_id, number): number for number in epochs}
        stale = [number for number in self._epochs if number not in epochs]
        failure: Exception | None = None
        if missing := [number for number in epochs if number not in self._epochs]:
            present = tunnel_links.present()
            for name in present.keys() - wanted.keys():
                if name not in {self._epochs[number].name for number in stale}:
                    tunnel_links.delete(name)  # an earlier run's
            for number in missing:
                # An older epoch that this node slept through may have the port.
                for older in [each for each in stale if each % 2 == number % 2]:
                    tunnel_links.delete(self._epochs.pop(older).name)
                    stale.remove(older)
                try:
                    self._epochs[number] = self._make(method, end, number, present)
                except (NetworkError, OSError, subprocess.SubprocessError) as error:
                    failure = error  # no reason to keep a key that is over, or a peer that was removed
        peers = [peer for peer in records.peers.values() if peer.node_id != end.node_id and peer.address]
        made = tuple(number for number in epochs if number in self._epochs)
        for number in made:
            self._introduce(end, number, peers)
        self._lead(end, peers, made)
        for number in stale:
            tunnel_links.delete(self._epochs.pop(number).name)
        if failure is not None:
            raise failure

    def _make(self, method: Method, end: End, number: int, present: Mapping[str, tuple[int, str]]) -> _Epoch:
        """An epoch's device: the one that an earlier run left, if it still serves, or a new one."""
        name, port = device_name(end.node_id, number), tunnel_port(end.port, number)
        epoch = _Epoch(name, method)
        if name in present:
            kept: Method = (
                wireguard.Kernel() if present[name][1] == wireguard.Kernel.kind else wireguard.Userspace()
            )
            try:
                epoch.seen = kept.read(name)
            except NetworkError as error:
                log.warning("making WireGuard device %s anew: %s", name, error)
            else:
                if epoch.seen.key and epoch.seen.port == port:
                    epoch.method = kept
                    epoch.index = tunnel_links.bring_up(name, tunnel_address(end.node_id), end.mtu - OVERHEAD)
                    return epoch
            tunnel_links.delete(name)
        tunnel_links.check_port(port)
        method.create(name)
        method.configure(name, port)
        epoch.index = tunnel_links.bring_up(name, tunnel_address(end.node_id), end.mtu - OVERHEAD)
        epoch.seen = method.read(name)
        log.info("keys of epoch %d are in force", number, extra={"device": name, "method": method.name})
        return epoch

    def _introduce(self, end: End, number: int, peers: Iterable[PeerRecord]) -> None:
        """Tell a device its peers."""
        epoch = self._epochs[number]
        wanted: dict[bytes, Peer] = {}
        for record in sorted(peers, key=lambda each: each.node_id):
            key = wireguard.key_of(record.keys.get(number, ""))
            if key is None or key == epoch.seen.key or key in wanted:
                continue  # it has none, or claims one that is another's
            inside = tunnel_address(record.node_id)
            met = epoch.seen.handshakes.get(key, 0) > 0 and epoch.seen.inside.get(key) == inside
            wanted[key] = Peer(key, record.address, tunnel_port(end.port, number), inside, greet=not met)
        known = epoch.seen.inside
        gone = [key for key in known if key not in wanted or known[key] != wanted[key].inside]
        new = [peer for key, peer in wanted.items() if key in gone or key not in known]
        changed = [peer for key, peer in wanted.items() if peer not in new and epoch.told.get(key) != peer]
        if gone or new or changed:
            epoch.method.change(epoch.name, gone, new, changed)
        for key in gone:
            known.pop(key, None)
            epoch.seen.handshakes.pop(key, None)
        known.update((peer.key, peer.inside) for peer in new)
        epoch.told = wanted

    def _lead(self, end: End, peers: Iterable[PeerRecord], epochs: tuple[int, ...]) -> None:
        """Send to each peer by the right epoch."""
        routes = tunnel_links.routes()
        routes.pop(tunnel_address(end.node_id), None)
        by_link = {epoch.index: number for number, epoch in self._epochs.items()}
        leading: dict[str, int] = {}
        behind: list[str] = []
        self.pending = False
        for peer in peers:
            keys = {number: wireguard.key_of(peer.keys.get(number, "")) for number in epochs}
            common = {
                number for number, key in keys.items() if key is not None and key in self._epochs[number].told
            }
            shaken = {
                number
                for number in common
                if self._epochs[number].seen.handshakes.get(keys[number] or b"", 0)
            }
            self.pending = self.pending or shaken != common
            address = tunnel_address(peer.node_id)
            chosen = choose(common, shaken, by_link.get(routes.get(address, 0)))
            if chosen is None:
                continue
            if routes.pop(address, None) != self._epochs[chosen].index:
                tunnel_links.lead(address, self._epochs[chosen].index)
            leading[peer.node_id] = chosen
            if chosen != epochs[-1]:
                behind.append(peer.node_id)
        for address in routes:
            tunnel_links.forget(address)
        self._leading, self._behind = leading, tuple(sorted(behind))

    _behind: tuple[str, ...] = ()

    def _tell(self, reason: str = "") -> None:
        self.report = NodeEncryption(
            method=self.method.name if self.method else "",
            trouble=self._trouble or (reason or self.report.trouble if self.method is None else ""),
            keys={number: wireguard.text_of(each.seen.key) for number, each in sorted(self._epochs.items())},
            behind=self._behind if self._epochs else (),
        )
