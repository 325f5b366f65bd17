"""What managers say when there is no leader, and of each other's health."""

from typing import Any

import pytest
from msgspec.structs import replace

from cluster.seams import MILLISECOND, SECOND
from manager.api.access import NO_LEADER
from manager.guidance import no_leader, warnings
from manager.health import ClusterHealth, ManagerHealth, judge

MEMBERS = {"a": "192.0.2.1:2377", "b": "192.0.2.2:2377", "c": "192.0.2.3:2377"}
NAMES = {"a": "host1", "b": "host2", "c": "host3"}
NOW = 1000 * 24 * 3600 * SECOND
COMMAND = "docker swarm init --force-new-cluster --advertise-addr 192.0.2.1:2377"


def test_a_lost_quorum_says_who_is_missing_and_what_to_type() -> None:
    said = no_leader("a", MEMBERS, {"a"}, NAMES)
    assert said.startswith(NO_LEADER)
    assert "2 of 3 managers are needed" in said
    assert "host2 (192.0.2.2:2377), host3 (192.0.2.3:2377)" in said
    assert "Start shoald on 1 of those hosts" in said
    assert said.endswith(COMMAND)
    two = {"a": MEMBERS["a"], "b": MEMBERS["b"]}
    assert "Start shoald on that host" in no_leader("a", two, {"a"}, {})  # and names nodes by id


def test_an_election_and_a_manager_that_is_out_get_no_dangerous_advice() -> None:
    for said in (
        no_leader("a", MEMBERS, {"a", "b"}, NAMES),
        no_leader("z", MEMBERS, {"z"}, NAMES),
        no_leader("a", MEMBERS, {"a"}, NAMES, left_behind="it was left behind"),
    ):
        assert said.startswith(NO_LEADER)
        assert "force" not in said
    assert "election is under way" in no_leader("a", MEMBERS, {"a", "b"}, NAMES)
    assert "left behind" in no_leader("a", MEMBERS, {"a"}, NAMES, left_behind="it was left behind")


@pytest.mark.parametrize(
    ("members", "reachable", "warned"), [(3, 3, 0), (3, 2, 1), (5, 4, 0), (5, 3, 1), (2, 2, 1), (1, 1, 0)]
)
def test_docker_info_warns_before_it_is_too_late(members: int, reachable: int, warned: int) -> None:
    ids = {str(number): f"192.0.2.{number}:2377" for number in range(members)}
    assert len(warnings(ids, list(ids)[:reachable])) == warned


def manager(id: str, **changes: Any) -> ManagerHealth:
    return replace(
        ManagerHealth(
            id=id,
            hostname=NAMES[id],
            address=MEMBERS[id],
            role="follower",
            last_index=100,
            free_bytes=10 << 30,
            certificate_expires=NOW + 60 * 24 * 3600 * SECOND,
            advertised=MEMBERS[id],
        ),
        **changes,
    )


def picture(*found: ManagerHealth) -> ClusterHealth:
    return judge("a", MEMBERS, found, NOW)


def silent(id: str) -> ManagerHealth:
    return manager(id, role="unreachable", last_index=0, problem="no answer within 2 s")


def test_a_healthy_cluster() -> None:
    found = picture(manager("c"), manager("a", role="leader", last_index=103), manager("b"))
    assert (found.status, found.leader, found.problems, found.advice) == ("healthy", "a", [], [])
    assert [m.hostname for m in found.managers] == ["host1", "host2", "host3"]
    assert [m.lag for m in found.managers] == [0, 3, 3]
    assert (found.quorum.needed, found.quorum.answering, found.quorum.may_fail) == (2, 3, 1)


def test_one_silent_manager_of_three_is_danger_as_the_next_one_stops_writes() -> None:
    found = picture(manager("a", role="leader"), manager("b"), silent("c"))
    assert found.status == "danger"
    assert found.quorum.may_fail == 0
    assert "host3 (192.0.2.3:2377) does not answer (no answer within 2 s)" in found.problems[0]
    assert "docker node demote host3, docker node rm --force host3" in found.problems[0]
    assert "one more manager" in found.problems[1]


def test_without_a_quorum_the_way_back_comes_first() -> None:
    found = picture(manager("a"), silent("b"), silent("c"))
    assert (found.status, found.leader, found.quorum.may_fail) == ("danger", "", -1)
    assert "2 of 3 managers are needed and 1 take part" in found.problems[0]
    assert COMMAND in found.problems[0]
    assert not any("demote" in problem for problem in found.problems)  # it could not be done now
    electing = picture(manager("a"), manager("b"), silent("c"))
    assert "election" in electing.problems[0]
    assert "force" not in electing.problems[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"last_index": -5000}, "5100 entries behind"),
        ({"sync_p99": 400 * MILLISECOND}, "400 ms to make a write durable"),
        ({"free_bytes": 100 << 20}, "100 MiB left"),
        ({"problem": "its disk is full"}, "its disk is full"),
        ({"certificate_expires": NOW + 5 * 3600 * SECOND}, "ends in 5 hours"),
        ({"advertised": "192.0.2.9:2377"}, "it is at 192.0.2.9:2377"),
    ],
)
def test_what_needs_attention_is_named_and_degrades(changes: dict[str, Any], words: str) -> None:
    found = picture(manager("a", role="leader"), manager("b", **changes), manager("c"))
    assert found.status == "degraded"
    assert len(found.problems) == 1
    assert "host2" in found.problems[0]
    assert words in found.problems[0]


def test_one_that_was_left_behind_does_not_count() -> None:
    found = picture(
        manager("a", role="leader"), manager("b"), manager("c", role="left-behind", problem="why")
    )
    assert found.quorum.answering == 2
    assert "host3 takes no part: why" in found.problems[0]


def test_learners_don_t_count_and_numbers_that_are_no_good_are_advice_only() -> None:
    two = {id: MEMBERS[id] for id in "ab"}
    found = judge("a", two, [manager("a", role="leader"), manager("b"), manager("c", role="learner")], NOW)
    assert (found.status, found.quorum.managers, found.quorum.answering) == ("healthy", 2, 2)
    assert "odd number" in found.advice[0]
    alone = judge("a", {"a": MEMBERS["a"]}, [manager("a", role="leader")], NOW)
    assert alone.status == "healthy"
    assert "one manager" in alone.advice[0]
