"""The tunnels of encrypted networks on this node, told of changes and tended. A part of the network plane."""

import asyncio
import contextlib
from collections.abc import Callable

from cluster.objects import NodeEncryption
from netplane.encryption import Encryption, End
from netplane.node_networks import NodeNetworks
from netplane.overlay import Overlays, Tunnel
from netplane.records import ClusterRecords

# Between two looks at the tunnels: while handshakes are awaited, at most, and otherwise.
_HANDSHAKE_SECONDS, _LONGEST_SECONDS, _TEND_SECONDS = 0.25, 2.5, 10.0


class EncryptedNetworks(NodeNetworks):
    """A base of NetPlane, which makes what is declared here."""

    _records: ClusterRecords
    _tunnel: Tunnel | None
    _overlays: Overlays
    _encryption: Encryption
    _handshaking: asyncio.Event
    encryption_changed: asyncio.Event
    """Set when `encryption` became another."""

    @property
    def encryption(self) -> NodeEncryption:
        """What the managers should know of this node's encryption; see `encryption_changed`."""
        return self._encryption.report

    async def _encrypt(self, step: Callable[[End, ClusterRecords, set[int]], None]) -> None:
        """Let the tunnels of encrypted networks follow, before anything is sent through them."""
        if self._tunnel is None:
            return
        end = End(self._tunnel.node_id, self._tunnel.port, self._tunnel.mtu)
        before = self._encryption.report
        await self._run(step, end, self._records, self._overlays.encrypted())
        if self._encryption.report != before:
            self.encryption_changed.set()
        if self._encryption.pending:
            self._handshaking.set()

    async def _tend_tunnels(self) -> None:
        """Follow the tunnels' handshakes, and mend what broke."""
        pause = _HANDSHAKE_SECONDS
        while True:
            if self._encryption.pending:
                await asyncio.sleep(pause)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TEND_SECONDS):
                        await self._handshaking.wait()
                self._handshaking.clear()
            before = self._encryption.report
            async with self._lock:
                await self._encrypt(self._encryption.look)
            # A peer that is down may not answer for days.
            same = self._encryption.report == before
            pause = min(1.2 * pause, _LONGEST_SECONDS) if same else _HANDSHAKE_SECONDS
