"""How the managers are: what each says of itself, and what follows from all of it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from cluster.seams import MILLISECOND, SECOND
from manager.guidance import force_command

LAGS = 1000
"""Entries behind the leader, from which on a manager counts as lagging."""
SLOW_SYNC = 250 * MILLISECOND
"""A disk whose syncs take so long (p99) is near the time after which followers elect another leader."""
LITTLE_ROOM = 1 << 30
"""Bytes: a log, a snapshot and the next one need some hundred MB."""
EXPIRES_SOON = 3 * 24 * 3600 * SECOND
"""Certificates are renewed half-way through their lifetime, so one that gets so old could not be."""

Role = Literal["leader", "follower", "learner", "left-behind", "unreachable"]
Status = Literal["healthy", "degraded", "danger"]


class ManagerHealth(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One manager, in its own words; of one that is silent only what the others know. Durations in ns."""

    id: str = msgspec.field(name="ID")
    hostname: str = ""
    address: str = ""
    """At which the members know it."""
    role: Role = "unreachable"
    term: int = 0
    leader: str = ""
    """The node id of the leader that it follows, or is."""
    last_contact: int | None = None
    """Since the leader and it heard of each other; None when that is not known."""
    lag: int = 0
    """Entries of the log that it lacks, compared with the furthest."""
    last_index: int = 0
    applied_index: int = 0
    snapshot_index: int = 0
    snapshot_age: int | None = None
    journal_bytes: int = 0
    free_bytes: int = 0
    sync_p50: int = 0
    sync_p99: int = 0
    certificate_expires: int = 0
    """Unix time, ns."""
    advertised: str = ""
    """Its own address as it knows it."""
    problem: str = ""
    """Why it could not be asked or takes no part; or what else it suffers from."""


class Quorum(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """How many managers there are, must be and may be lost."""

    managers: int
    needed: int
    answering: int
    may_fail: int
    """So many more may fail before writes stop; -1 when they have stopped."""


class ClusterHealth(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """GET /shoal/cluster/health. `problems` says in a sentence each what to do; `advice` is no alarm."""

    status: Status
    leader: str
    quorum: Quorum
    managers: Sequence[ManagerHealth]
    problems: Sequence[str]
    advice: Sequence[str]


def judge(own: str, members: Mapping[str, str], found: Iterable[ManagerHealth], now: int) -> ClusterHealth:
    """The whole picture. members: the voters' addresses by node id. found: an answer, or none, of each
    manager; `own` is the one that asked them. now: Unix time, ns."""
    answers = list(found)
    furthest = max((manager.last_index for manager in answers), default=0)
    behind = [
        msgspec.structs.replace(m, lag=furthest - m.last_index) if m.role != "unreachable" else m
        for m in answers
    ]
    managers = sorted(behind, key=lambda manager: (manager.hostname, manager.id))
    taking_part = [m for m in managers if m.role in ("leader", "follower") and m.id in members]
    needed = len(members) // 2 + 1
    leader = next((m.id for m in taking_part if m.role == "leader"), "")
    works = bool(leader) and len(taking_part) >= needed
    quorum = Quorum(
        managers=len(members),
        needed=needed,
        answering=len(taking_part),
        may_fail=len(taking_part) - needed if works else -1,
    )
    problems = [problem for manager in managers for problem in _problems(manager, works, now)]
    if not works:
        problems.insert(0, _lost(own, managers, members, quorum))
    last_chance = works and len(taking_part) < len(members) and quorum.may_fail == 0
    if last_chance:
        problems.append("one more manager that fails stops all writes: bring the missing ones back first")
    status: Status = "danger" if not works or last_chance else "degraded" if problems else "healthy"
    return ClusterHealth(
        status=status,
        leader=leader,
        quorum=quorum,
        managers=managers,
        problems=problems,
        advice=_advice(len(members)),
    )


def named(manager: ManagerHealth) -> str:
    """Its name for people."""
    return manager.hostname or manager.id


def _lost(own: str, managers: Sequence[ManagerHealth], members: Mapping[str, str], quorum: Quorum) -> str:
    if quorum.answering >= quorum.needed:
        return "enough managers answer and none leads: an election is under way; look again in a second"
    silent = [f"{named(m)} ({m.address})" for m in managers if m.role == "unreachable"]
    command = force_command(members[own]) if own in members else "docker swarm init --force-new-cluster"
    missing = quorum.needed - quorum.answering
    return (
        f"no quorum: {quorum.needed} of {quorum.managers} managers are needed and {quorum.answering} take "
        f"part, so nothing can be changed. Bring {missing} of {', '.join(silent) or 'the others'} back. Only "
        f"if they are gone for good, run on the manager that is to survive: {command}"
    )


def _problems(manager: ManagerHealth, works: bool, now: int) -> Iterable[str]:
    name = named(manager)
    if manager.role == "unreachable":
        replace = (
            f"; if it is gone for good: docker node demote {name}, docker node rm --force {name}, then join "
            "another manager"
        )
        yield (
            f"manager {name} ({manager.address}) does not answer ({manager.problem}): start its shoald or "
            f"mend its network{replace if works else ''}"
        )
        return
    if manager.role == "left-behind":
        yield f"manager {name} takes no part: {manager.problem}"
        return
    if manager.problem and manager.role != "learner":
        yield f"manager {name} takes no writes: {manager.problem}"
        return
    if manager.lag > LAGS:
        yield f"manager {name} is {manager.lag} entries behind: look at its disk, its load and its network"
    if manager.sync_p99 > SLOW_SYNC:
        yield (
            f"the disk of {name} takes {manager.sync_p99 // MILLISECOND} ms to make a write durable (p99): "
            "put /var/lib/shoal on a faster one, or find out what else writes to it"
        )
    if manager.free_bytes < LITTLE_ROOM:
        yield f"{name} has {manager.free_bytes >> 20} MiB left for the cluster's state: free some space"
    hours = max(0, manager.certificate_expires - now) // (3600 * SECOND)
    if manager.certificate_expires - now < EXPIRES_SOON:
        yield (f"the certificate of {name} ends in {hours} hours and was not renewed: its log says why")
    if manager.advertised != manager.address and manager.role != "learner":
        yield (
            f"the others know {name} at {manager.address}, and it is at {manager.advertised}: it goes on "
            "telling them; if that does not end, demote and promote it"
        )


def _advice(members: int) -> list[str]:
    if members == 1:
        return [
            "one manager: if it fails, nothing can be changed until it is back; three stand the loss of one"
        ]
    if members % 2 == 0:
        return [f"{members} managers stand no more failures than {members - 1} would: have an odd number"]
    return []
