"""Hosts without Shoal on the playground's underlay: the raw limit of what the same devices carry.

`PlainHosts` are two network namespaces with a cable each to the bridge of the playground's hosts, nothing
else in them. `route_through` makes of them what the routing mesh must be compared with: the first forwards
to a server behind the second, over VXLAN and a bridge as the mesh does, without rules, NAT or connection
tracking.
"""

import subprocess
from contextlib import ExitStack
from types import TracebackType

from bench.net_tools import Spot, host_spot
from shoal.playground.layout import CLUSTER_GATEWAY, UNDERLAY
from shoal.playground.playground import Playground
from shoal.playground.underlay import BRIDGE, ip_batch

ADDRESSES = ("192.0.2.241", "192.0.2.242")
_SUBNET, _ENTRY, SERVER = "10.250.0.0/24", "10.250.0.1", "10.250.0.2"
_VXLAN = "type vxlan id 4242 dstport 4790"
_QUIET = (
    "for each in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $each ] || echo 0 > $each; done; "
    "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter"
)


class PlainHosts:
    """See the module. They are gone after the `with`."""

    def __init__(self, place: Playground) -> None:
        self._underlay = host_spot(place, UNDERLAY)
        self._stack = ExitStack()
        self.spots: list[Spot] = []

    def _namespace(self) -> Spot:
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", f"{_QUIET}; echo ready; exec sleep 3600"], stdout=subprocess.PIPE
        )
        self._stack.callback(_end, holder)
        assert holder.stdout is not None
        holder.stdout.readline()
        return Spot(holder.pid)

    def __enter__(self) -> "PlainHosts":
        """Make them."""
        try:
            for number, address in enumerate(ADDRESSES, 1):
                spot = self._namespace()
                self.spots.append(spot)
                port = f"plain{number}"
                cable = f"link add {port} type veth peer name eth0 netns {spot.pid}"
                ip_batch(self._underlay.pid, [cable, f"link set {port} master {BRIDGE} up"])
                ip_batch(
                    spot.pid,
                    [
                        *("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"),
                        f"route add default via {CLUSTER_GATEWAY}",
                    ],
                )
        except BaseException:
            self._stack.close()
            raise
        return self

    def route_through(self) -> Spot:
        """A server's place at SERVER, reached from everywhere through the first host."""
        entry, far = self.spots
        server = self._namespace()
        for spot, other in ((entry, ADDRESSES[1]), (far, ADDRESSES[0])):
            ip_batch(
                spot.pid,
                [
                    "link add br0 type bridge forward_delay 0 mcast_snooping 0",
                    f"link add vx0 {_VXLAN} remote {other} dev eth0",
                    *("link set vx0 master br0 up", "link set br0 up mtu 1450"),
                ],
            )
        ip_batch(entry.pid, [f"addr add {_ENTRY}/24 dev br0"])
        ip_batch(
            far.pid,
            [
                f"link add port type veth peer name eth0 netns {server.pid}",
                *("link set port mtu 1450", "link set port master br0 up"),
            ],
        )
        ip_batch(
            server.pid,
            [
                *("link set lo up", "link set eth0 mtu 1450", f"addr add {SERVER}/24 dev eth0"),
                *("link set eth0 up", f"route add default via {_ENTRY}"),
            ],
        )
        ip_batch(self._underlay.pid, [f"route add {_SUBNET} via {ADDRESSES[0]}"])
        return server

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take them away; their cables go with them."""
        self._stack.close()


def _end(holder: "subprocess.Popen[bytes]") -> None:
    holder.kill()
    holder.wait()
    if holder.stdout is not None:
        holder.stdout.close()
