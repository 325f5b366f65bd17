"""The nftables table that keeps encrypted networks encrypted. Pure: text for `netplane.libnftables`.

Their VXLAN has sockets of its own (IPv6, while plain VXLAN has IPv4), and their tunnels' ends no route but
through WireGuard; these rules say it once more, and hold when routes or sockets are not as they should be.
"""

from collections.abc import Iterable

from cluster.encryption import TUNNELS
from netplane.tunnel_links import PREFIX

TABLE = "inet shoal_encryption"


def remove() -> str:
    """No table."""
    return f"table {TABLE}\ndelete table {TABLE}\n"


def table(port: int, vnis: Iterable[int]) -> str:
    """The whole table, in place of any that is there. `port` is VXLAN's; `vnis` the encrypted networks'."""
    ids = sorted(vnis)
    foreign, leaving = f'iifname != "{PREFIX}*" iifname != "lo"', f'oifname != "{PREFIX}*" oifname != "lo"'
    return remove() + "\n".join(
        [
            f"table {TABLE} {{",
            "  chain arriving {",
            "    type filter hook prerouting priority -310",
            f"    {foreign} ip6 saddr {TUNNELS} counter drop",
            f"    {foreign} ip6 daddr {TUNNELS} counter drop",
            # The identifier is in the second word of VXLAN's header, which follows the 8 bytes of UDP's.
            *(f"    {foreign} udp dport {port} @th,96,24 {vni} counter drop" for vni in ids),
            f'    iifname "{PREFIX}*" meta l4proto ipv6-icmp accept',
            f'    iifname "{PREFIX}*" ip6 daddr {TUNNELS} udp dport {port} accept',
            f'    iifname "{PREFIX}*" counter drop',
            "  }",
            "  chain leaving {",
            "    type filter hook output priority -310",
            f"    {leaving} ip6 daddr {TUNNELS} counter drop",
            *(f"    {leaving} udp dport {port} @th,96,24 {vni} counter drop" for vni in ids),
            "  }",
            "}",
            "",
        ]
    )
