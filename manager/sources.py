"""How often one address may connect to the cluster port: a TLS handshake costs more than asking for it."""

import ipaddress
from collections import OrderedDict

RATE = 50
"""Connections a second from one address, in the long run. A node needs a few when its leader changes."""
BURST = 100
REMEMBERED = 4096
"""Addresses of which it is known how often they came lately."""


class Sources:
    """A bucket of tokens for each address. Loopback, whose users can do worse, is not counted."""

    def __init__(self, rate: int = RATE, burst: int = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address → tokens, at that time

    def admit(self, address: str, now: float) -> bool:
        """Whether that address may connect once more. `now` in seconds, monotonic."""
        if _loopback(address):
            return True
        tokens, then = self._buckets.pop(address, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - then) * self._rate)
        admitted = tokens >= 1
        self._buckets[address] = (tokens - 1 if admitted else tokens, now)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return admitted


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
