"""Whether a node has moved, and what moves along."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from cluster.messages import ManagerAddress
from cluster.states import Role
from shoal.daemon.addressing import settled
from shoal.daemon.membership import Membership

HERE = Membership(
    node_id="me",
    cluster_id="c",
    role=Role.MANAGER,
    listen_address="0.0.0.0:2377",
    advertise_address="192.0.2.1:2377",
    data_path_address="192.0.2.1",
    advertise_local=True,
    managers=(ManagerAddress("me", "192.0.2.1:2377"), ManagerAddress("other", "192.0.2.2:2377")),
)


def nowhere(_: Sequence[str]) -> str:
    return ""


def via(managers: Sequence[str]) -> str:
    assert managers == ["192.0.2.2:2377"]
    return "192.0.2.7"


def test_a_node_that_stays_stays_and_learns_that_its_address_is_its_own() -> None:
    before = replace(HERE, advertise_local=False)
    assert settled(before, "", {"192.0.2.1", "10.0.0.1"}, via) == (HERE, "")


def test_a_node_that_moved_is_where_the_other_managers_are_reached_from() -> None:
    now, problem = settled(HERE, "", {"192.0.2.7", "10.0.0.1"}, via)
    assert problem == ""
    assert now.advertise_address == "192.0.2.7:2377"
    assert now.data_path_address == "192.0.2.7"
    assert now.listen_address == "0.0.0.0:2377"
    assert now.managers[0] == ManagerAddress("me", "192.0.2.7:2377")
    assert now.managers[1] == HERE.managers[1]


def test_the_only_address_will_do_and_of_several_none_is_guessed() -> None:
    alone = replace(HERE, managers=HERE.managers[:1])
    assert settled(alone, "", {"10.0.0.9"}, nowhere)[0].advertise_address == "10.0.0.9:2377"
    for local in ({"10.0.0.9", "10.1.0.9"}, set()):
        now, problem = settled(alone, "", local, nowhere)
        assert now == alone
        assert "--advertise-addr" in problem
    # With others, an address that leads to none of them is no better than the old one.
    assert settled(HERE, "", {"10.0.0.9"}, nowhere)[0] == HERE


def test_an_address_that_was_never_this_machine_s_own_stays() -> None:
    behind_a_router = replace(HERE, advertise_address="203.0.113.9:2377", advertise_local=False)
    assert settled(behind_a_router, "", {"10.0.0.9"}, via) == (behind_a_router, "")


@pytest.mark.parametrize("wanted", ["10.0.0.9", "10.0.0.9:2377"])
def test_the_operator_s_word_counts(wanted: str) -> None:
    bound = replace(HERE, listen_address="192.0.2.1:2377", data_path_address="198.51.100.1")
    now, problem = settled(bound, wanted, {"192.0.2.1", "10.0.0.9"}, nowhere)
    assert problem == ""
    assert now.advertise_address == "10.0.0.9:2377"
    assert now.listen_address == "10.0.0.9:2377"  # it listened at the old address only
    assert now.data_path_address == "198.51.100.1"  # that was elsewhere
    other_port, _ = settled(HERE, "10.0.0.9:7000", {"10.0.0.9"}, nowhere)
    assert other_port.advertise_address == "10.0.0.9:7000"
