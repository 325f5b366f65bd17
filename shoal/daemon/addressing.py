"""Whether this node has moved to another address since it was last up, as with DHCP. A decision; no I/O."""

from collections.abc import Callable, Collection, Sequence

from msgspec.structs import replace

from cluster.messages import ManagerAddress
from shoal.daemon.membership import Membership


def settled(
    membership: Membership,
    wanted: str,
    local: Collection[str],
    towards: Callable[[Sequence[str]], str],
) -> tuple[Membership, str]:
    """The membership with the node's present address, and what is wrong, if anything.

    An address that was this machine's own when it was chosen, and is no more, is replaced by the one that the
    other managers are reached from; without others, by the only one that there is. An address of another
    machine (of a router in front, say) stays: whoever chose it knew why.

    Args:
        wanted: the operator's choice, "ip" or "ip:port"; empty for none.
        local: this machine's addresses.
        towards: the local address from which one of these managers ("ip:port") is reached, or "".
    """
    host, _, port = membership.advertise_address.rpartition(":")
    host = host.strip("[]")
    if wanted:
        new_host, separator, new_port = wanted.rpartition(":")
        chosen = wanted if separator else f"{wanted}:{port}"
        new = (new_host if separator else new_port).strip("[]")
        return moved(membership, chosen, advertise_local=new in local), ""
    if host in local:
        return replace(membership, advertise_local=True), ""
    if not membership.advertise_local:
        return membership, ""
    others = [m.address for m in membership.managers if m.node_id != membership.node_id]
    found = towards(others) if others else next(iter(local)) if len(local) == 1 else ""
    if not found:
        listed = ", ".join(sorted(local)) or "none"
        return membership, (
            f"this node's address {host} is gone, and which of its present ones ({listed}) the others should "
            "use is not clear: start shoald with --advertise-addr"
        )
    return moved(membership, f"{found}:{port}", advertise_local=True), ""


def moved(
    membership: Membership, advertise: str, *, advertise_local: bool, data_path: str = ""
) -> Membership:
    """The membership with another address of this node's; what else was at the old one moves along."""
    old, new = membership.address, advertise.rpartition(":")[0].strip("[]")
    listen_host, _, listen_port = membership.listen_address.rpartition(":")
    path = new if membership.data_path_address == old else membership.data_path_address
    own = ManagerAddress(membership.node_id, advertise)
    return replace(
        membership,
        advertise_address=advertise,
        advertise_local=advertise_local,
        listen_address=f"{new}:{listen_port}" if listen_host == old else membership.listen_address,
        data_path_address=data_path or path,
        managers=tuple(own if m.node_id == own.node_id else m for m in membership.managers),
    )
