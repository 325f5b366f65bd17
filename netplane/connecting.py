"""Service addresses at connect(): what the kernel's maps hold follows what connections are led to.

Where the kernel does not take the programs, or refuses later, the rules in each sandbox do it all.
"""

import logging
import socket
from collections.abc import Mapping

from netplane.balanced import Change, Vips
from netplane.bpf.connect import Connect, directory_of, sweep
from netplane.bpf.kernel import BpfError
from netplane.model import SandboxRecord
from netplane.netlink.wire import NetlinkSocket
from netplane.sandbox_rules import prefix_of

log = logging.getLogger("shoal.netplane")


class Connecting:
    """See the module. Runs in the plane's worker thread."""

    def __init__(self, cgroup: str) -> None:
        """Args: cgroup: that of all containers of this node; "" leaves all to the rules."""
        self._cgroup = cgroup
        self._connect: Connect | None = None
        self._whole = False  # True while the maps hold what they should
        self._spaces: dict[str, tuple[int, tuple[str, ...]]] = {}  # sandbox id → cookie, networks

    def join(self) -> None:
        """The node is in a cluster: there may be service addresses."""
        if self._connect is not None or not self._cgroup:
            return
        try:
            self._connect = Connect.open(directory_of(self._cgroup))
            for cookie, networks in self._spaces.values():
                self._connect.enter(cookie, networks)
            self._connect.keep(cookie for cookie, _ in self._spaces.values())
        except BpfError as error:
            self._give_up(error)
        else:
            log.info("service addresses are resolved at connect()")

    def leave(self) -> None:
        """The node is in no cluster any more: nothing is left."""
        self._whole = False
        if self._connect is not None:
            self._connect.remove()
            self._connect = None
        elif self._cgroup:
            try:
                sweep(directory_of(self._cgroup))  # of an earlier run, or half made
            except BpfError as error:
                log.debug("%s", error)

    def close(self) -> None:
        """Let go; the kernel goes on, if there is anyone to do it for."""
        if not self._spaces:
            self.leave()
        elif self._connect is not None:
            self._connect.close()
            self._connect = None

    def update(self, change: Change, vips: Mapping[str, Vips], subnets6: Mapping[str, str]) -> None:
        """Follow a change; `vips` are all service addresses after it."""
        if self._connect is None:
            return
        try:
            if not self._whole:
                self._connect.write_whole(
                    {each: _packed(known, subnets6.get(each, "")) for each, known in vips.items()}
                )
                self._whole = True
            for network_id, (before, after) in change.vips.items():
                subnet6 = subnets6.get(network_id, "")
                self._connect.change(network_id, _packed(before, subnet6), _packed(after, subnet6))
        except BpfError as error:
            self._give_up(error)

    def enter(self, record: SandboxRecord, inside: NetlinkSocket) -> None:
        """A sandbox is there, or in other networks than before."""
        try:
            cookie = inside.namespace_cookie()
        except OSError as error:
            if self._connect is not None:
                self._give_up(error)
            return
        self._spaces[record.sandbox.id] = cookie, tuple(record.networks)
        if self._connect is not None:
            try:
                self._connect.enter(cookie, tuple(record.networks))
            except BpfError as error:
                self._give_up(error)

    def forget(self, sandbox_id: str) -> None:
        """A sandbox is gone."""
        cookie, _ = self._spaces.pop(sandbox_id, (0, ()))
        if cookie and self._connect is not None:
            try:
                self._connect.leave(cookie)
            except BpfError as error:
                self._give_up(error)

    def backends(self, network_id: str, address: str) -> tuple[str, ...] | None:
        """Where connections to a service's address are led; None: the rules do that. Raises BpfError."""
        if self._connect is None:
            return None
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        found = self._connect.backends(network_id, socket.inet_pton(family, address))
        return tuple(socket.inet_ntop(family, each) for each in found) if found is not None else None

    def write_anew(self) -> None:
        """With the next change the maps are written as a whole."""
        self._whole = False

    def _give_up(self, error: Exception) -> None:
        """Nothing may be led by maps that are not kept in line."""
        log.warning("service addresses are left to nftables alone: %s", error)
        self.leave()
        self._cgroup = ""


def _packed(vips: Vips, subnet6: str) -> dict[bytes, list[bytes]]:
    prefixes = [b"", prefix_of(subnet6)] if subnet6 else [b""]
    return {
        prefix + socket.inet_aton(vip): [prefix + socket.inet_aton(address) for address in backends]
        for prefix in prefixes
        for vip, backends in vips.items()
    }
