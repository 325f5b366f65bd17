"""The network between the hosts: a bridge in its own namespace, which also routes to the client.

Each host's cable is a veth pair whose end on the bridge carries the host's name. Partitions are rules on the
bridge.
"""

import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ShoalError
from shoal.playground.layout import (
    CLIENT,
    CLIENT_ADDRESS,
    CLIENT_GATEWAY,
    CLUSTER_GATEWAY,
    CLUSTER_SUBNET_LENGTH,
    Host,
)

BRIDGE = "bridge0"
_TABLE = "shoal-playground"


@dataclass(frozen=True, order=True)
class Cut:
    """Packets that one end sends to another and that get lost."""

    sender: str
    receiver: str


def bridge_commands() -> list[str]:
    """Commands for ip(8) that make the bridge; a fixed address keeps it from changing with its ports."""
    return [
        f"link add {BRIDGE} address 02:53:00:00:00:01 type bridge forward_delay 0 mcast_snooping 0",
        f"addr add {CLUSTER_GATEWAY}/{CLUSTER_SUBNET_LENGTH} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]


def mac_address(address: str) -> str:
    """A host's hardware address: the same after a power loss, so that its peers still know it."""
    return "02:53:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))


def plug_commands(name: str, address: str, pid: int) -> list[str]:
    """Commands that plug a cable between the underlay and `eth0` of the host whose process 1 is `pid`."""
    cable = f"link add {name} type veth peer name eth0 address {mac_address(address)} netns {pid}"
    if name == CLIENT:
        return [cable, f"addr add {CLIENT_GATEWAY}/24 dev {name}", f"link set {name} up"]
    return [cable, f"link set {name} master {BRIDGE} up"]


def unplug_command(name: str) -> str:
    """The command that takes a cable away, if it is there."""
    return f"link delete {name}"


def host_commands(host: Host | None) -> list[str]:
    """Commands that configure `eth0` in a host, or in the client (None)."""
    address, gateway = (host.address, CLUSTER_GATEWAY) if host else (CLIENT_ADDRESS, CLIENT_GATEWAY)
    return [
        f"addr add {address}/{CLUSTER_SUBNET_LENGTH} dev eth0",
        "link set eth0 up",
        f"route add default via {gateway}",
    ]


def ruleset(cuts: Iterable[Cut]) -> str:
    """The nft(8) script that makes these cuts, and no others, in one transaction.

    Hosts meet on the bridge, so all their traffic of any protocol is seen in `forward`. What goes to or comes
    from the client passes the router, and so the bridge's own input and output.
    """
    chains: dict[str, list[str]] = {"forward": [], "input": [], "output": []}
    for cut in sorted(set(cuts)):
        if cut.receiver == CLIENT:
            chains["input"].append(f'iifname "{cut.sender}" ip daddr {CLIENT_ADDRESS} drop')
        elif cut.sender == CLIENT:
            chains["output"].append(f'oifname "{cut.receiver}" ip saddr {CLIENT_ADDRESS} drop')
        else:
            chains["forward"].append(f'iifname "{cut.sender}" oifname "{cut.receiver}" drop')
    lines = [f"table bridge {_TABLE} {{}}", f"delete table bridge {_TABLE}"]
    if any(chains.values()):
        lines.append(f"table bridge {_TABLE} {{")
        for hook, rules in chains.items():
            lines += [f"chain {hook} {{", f"type filter hook {hook} priority 0; policy accept;", *rules, "}"]
        lines.append("}")
    return "\n".join(lines) + "\n"


def make_cuts(name: str, others: Sequence[str], *, one_way: bool) -> set[Cut]:
    """The cuts that part `name` from the others; with `one_way`, only what `name` sends gets lost."""
    cuts = {Cut(name, other) for other in others}
    return cuts if one_way else cuts | {Cut(other, name) for other in others}


def load_cuts(path: Path) -> set[Cut]:
    """The cuts recorded in `path`; none when there is no such file."""
    if not path.exists():
        return set()
    return {Cut(sender, receiver) for sender, receiver in json.loads(path.read_text())}


def save_cuts(path: Path, cuts: Iterable[Cut]) -> None:
    """Record the cuts in force."""
    path.write_text(json.dumps([[cut.sender, cut.receiver] for cut in sorted(cuts)]))


def _run(command: Sequence[str], script: str, what: str) -> None:
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ShoalError(f"{what} failed: {done.stderr.strip() or f'exit status {done.returncode}'}")


def ip_batch(pid: int, commands: Sequence[str], *, force: bool = False) -> None:
    """Run ip(8) commands in the network namespace of process `pid`.

    Args:
        force: go on after a command that fails, and don't complain: for taking away what may not be there.

    Raises:
        ShoalError: a command failed.
    """
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *(["-force"] if force else []), "-batch", "-"]
    if force:
        subprocess.run(command, input="\n".join(commands), capture_output=True, text=True, check=False)
        return
    _run(command, "\n".join(commands) + "\n", "configuring the playground's network")


def prepare_router(pid: int) -> None:
    """Make the namespace of `pid` forward between cluster and client, and keep packet filters off its bridge.

    `bridge-nf-call-*` is 1 in every new network namespace; it would pass bridged frames through IP rules.
    The router tells every time that it is no name server: rate-limited, each second look-up would wait 5 s.
    """
    script = (
        "echo 1 > /proc/sys/net/ipv4/ip_forward; "
        "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; "
        "for f in /proc/sys/net/bridge/bridge-nf-call-*; do if [ -e $f ]; then echo 0 > $f; fi; done"
    )
    _run(
        ["nsenter", f"--target={pid}", "--net", "--mount", "sh", "-ec", script], "", "preparing the underlay"
    )


def apply_cuts(pid: int, cuts: Iterable[Cut]) -> None:
    """Put these cuts, and no others, in force in the underlay whose process 1 is `pid`."""
    _run(["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "-f", "-"], ruleset(cuts), "changing the partitions")
