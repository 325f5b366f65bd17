"""What to say, and to type, when the managers have no leader. Pure."""

from collections.abc import Collection, Mapping

from manager.api.access import NO_LEADER


def no_leader(
    own: str,
    members: Mapping[str, str],
    reachable: Collection[str],
    names: Mapping[str, str],
    left_behind: str = "",
) -> str:
    """dockerd's words, and then ours.

    own: this manager's node id. members: all managers' addresses by node id. reachable: those that this one
    has a connection to, itself included. names: their host names. left_behind: why this manager takes no
    further part, if so.
    """
    if left_behind:
        return f"{NO_LEADER} Here, {left_behind}."
    if own not in members:
        return f"{NO_LEADER} This manager is not a member: it was removed, or has not been admitted yet."
    needed = len(members) // 2 + 1
    lost = sorted(set(members) - set(reachable), key=lambda id: names.get(id, id))
    up = len(members) - len(lost)
    if not lost or up >= needed:
        found = f"{up} of {len(members)} managers can be reached from here"
        return f"{NO_LEADER} {found}, so an election is under way."
    listed = ", ".join(f"{names.get(id) or id} ({members[id]})" for id in lost)
    hosts = _hosts(needed - up, len(lost))
    return (
        f"{NO_LEADER} {needed} of {len(members)} managers are needed, and {up} can be reached from "
        f"{names.get(own) or own}; it can't reach {listed}. Start shoald on {hosts}, or mend the network. "
        f"Only if they are gone for good, run here: {force_command(members[own])}"
    )


def warnings(members: Mapping[str, str], reachable: Collection[str]) -> list[str]:
    """What `docker info` should warn of although there is a leader."""
    count, up = len(members), len(set(members) & set(reachable))
    needed = count // 2 + 1
    if up < count and up == needed:
        return [
            f"only {up} of {count} managers can be reached from here: one more that fails stops all changes. "
            'See "shoal cluster health"'
        ]
    if count == 2:
        return [
            "two managers stand no failure: with either of them gone, nothing can be changed. Add a third"
        ]
    return []


def force_command(address: str) -> str:
    """What the survivor of a lost majority types."""
    return f"docker swarm init --force-new-cluster --advertise-addr {address}"


def _hosts(missing: int, lost: int) -> str:
    if lost == 1:
        return "that host"
    return "those hosts" if missing == lost else f"{missing} of those hosts"
