"""What follows from the managers' records."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.dataplane import (
    DataplaneChanges,
    EndpointRecord,
    NetworkRecord,
    PeerRecord,
    Protocol,
    PublishedPort,
    ServiceRecord,
)
from netplane.dns.zone import Resident, build_zone
from netplane.port_rules import Published
from netplane.records import ClusterRecords

_NETWORK = NetworkRecord(id="n", name="app", driver="overlay", ingress=True)
_SERVICE = ServiceRecord(
    network_id="n",
    service_id="s",
    name="web",
    aliases=("www",),
    vip="10.0.0.2/24",
    ports=(PublishedPort(protocol=Protocol.TCP, published=80, target=8080),),
)


def endpoint(number: int, *, serving: bool = True, node: str = "a", service: str = "s") -> EndpointRecord:
    return EndpointRecord(
        network_id="n",
        task_id=f"t{number}",
        task_name=f"web.{number}.t{number}",
        service_id=service,
        node_id=node,
        address=f"10.0.0.{number}/24",
        serving=serving,
    )


def known(*endpoints: EndpointRecord) -> ClusterRecords:
    records = ClusterRecords()
    peers = (PeerRecord(node_id="a", address="192.0.2.1"), PeerRecord(node_id="b", address="192.0.2.2"))
    records.apply(
        DataplaneChanges(
            full=True, networks=(_NETWORK,), peers=peers, services=(_SERVICE,), endpoints=endpoints
        )
    )
    return records


def test_only_serving_endpoints_are_backends() -> None:
    records = known(endpoint(10), endpoint(9), endpoint(11, serving=False))
    assert records.serving("n", "s") == ("10.0.0.9", "10.0.0.10")
    assert records.serving("n", "s", {"t9"}) == ("10.0.0.10",)
    assert records.virtual(("n", "s")) == {"10.0.0.2": ("10.0.0.9", "10.0.0.10")}
    assert records.published(("n", "s")) == {
        (Protocol.TCP, 80): Published(Protocol.TCP, 80, 8080, ("10.0.0.9", "10.0.0.10"))
    }


def test_fresh_tasks_serve_if_there_are_no_others() -> None:
    records = known(endpoint(9), endpoint(10), endpoint(11, serving=False))
    assert records.virtual(("n", "s"), (), {"t9", "t11"}) == {"10.0.0.2": ("10.0.0.10",)}
    assert records.serving("n", "s", {"t10"}, {"t9"}) == ("10.0.0.9",)
    begin = DataplaneChanges(endpoints=(endpoint(9), endpoint(11), endpoint(12), endpoint(13, serving=False)))
    assert records.beginning(begin) == {"t11", "t12"}


def test_tasks_on_silent_nodes_serve_if_there_are_no_others() -> None:
    records = known(endpoint(9), endpoint(10, node="b"), endpoint(11, node="b"))
    silence = DataplaneChanges(peers=(PeerRecord(node_id="b", address="192.0.2.2", silent=True),))
    touched = records.apply(silence)
    assert touched.services == {("n", "s")}
    assert not touched.whole, "its tunnel stays"
    assert records.virtual(("n", "s")) == {"10.0.0.2": ("10.0.0.9",)}
    assert records.serving("n", "s") == ("10.0.0.9",)
    assert records.serving("n", "s", {"t9"}) == ("10.0.0.10", "10.0.0.11")
    assert records.places("n", "a") == {"10.0.0.10": "192.0.2.2", "10.0.0.11": "192.0.2.2"}
    heard = DataplaneChanges(peers=(PeerRecord(node_id="b", address="192.0.2.2"),))
    assert records.apply(heard).services == {("n", "s")}
    assert len(records.serving("n", "s")) == 3


def test_places_are_those_of_other_nodes() -> None:
    records = known(endpoint(9), endpoint(10, node="b"), endpoint(11, node="unknown"))
    assert records.places("n", "a") == {"10.0.0.10": "192.0.2.2"}
    peer = PeerRecord(node_id="unknown", address="192.0.2.3")
    assert records.apply(DataplaneChanges(peers=(peer,))).whole == {"n"}
    assert records.places("n", "a") == {"10.0.0.10": "192.0.2.2", "10.0.0.11": "192.0.2.3"}


@given(
    st.lists(
        st.tuples(st.integers(3, 12), st.booleans(), st.sampled_from("ab"), st.sampled_from(["s", "z"]))
    ),
    st.sets(st.integers(3, 12)),
)
def test_a_history_of_changes_is_worth_its_outcome(
    changes: list[tuple[int, bool, str, str]], removed: set[int]
) -> None:
    step_by_step = known()
    last: dict[int, EndpointRecord] = {}
    for number, serving, node, service in changes:
        last[number] = endpoint(number, serving=serving, node=node, service=service)
        step_by_step.apply(DataplaneChanges(endpoints=(last[number],)))
    for number in removed:
        last.pop(number, None)
        step_by_step.apply(DataplaneChanges(removed_endpoints=(("n", f"t{number}"),)))
    at_once = known(*last.values())
    for records in (step_by_step, at_once):
        assert set(records.serving("n", "s")) == {
            f"10.0.0.{number}" for number, each in last.items() if each.serving and each.service_id == "s"
        }
    assert step_by_step.virtual(("n", "s")) == at_once.virtual(("n", "s"))
    places = step_by_step.places("n", "a")
    assert places == at_once.places("n", "a")
    for number in range(3, 13):
        address = f"10.0.0.{number}"
        assert step_by_step.place("n", address, "a") == places.get(address, "")
        here = number in last and last[number].node_id == "a"
        assert step_by_step.is_on("a", "n", address) == here


def test_zone() -> None:
    records = known(endpoint(9), endpoint(10, serving=False))
    zone = build_zone(
        "app",
        records.services("n"),
        records.endpoints("n"),
        [Resident("10.0.0.9", ("Box", "box-id"))],
        lambda service: records.serving("n", service),
    )
    vip, nine = bytes([10, 0, 0, 2]), bytes([10, 0, 0, 9])
    assert zone.names[b"web"] == zone.names[b"www"] == zone.names[b"web.app"] == (vip,)
    assert zone.names[b"tasks.web"] == (nine,)
    assert zone.names[b"web.10.t10"] == ()  # it does not serve
    assert zone.names[b"box"] == zone.names[b"box-id.app"] == (nine,)
    assert zone.pointers == {
        "10.0.0.2": "web.app",
        "10.0.0.9": "web.9.t9.app",
        "10.0.0.10": "web.10.t10.app",
    }


def test_zone_with_ipv6() -> None:
    """Every name has the IPv6 addresses that go with its IPv4 ones, and every address leads back."""
    records = known(endpoint(9), endpoint(10, serving=False))
    zone = build_zone(
        "app",
        records.services("n"),
        records.endpoints("n"),
        [Resident("10.0.0.9", ("box",), "fd00:1:2:3::a00:9")],
        lambda service: records.serving("n", service),
        "fd00:1:2:3::/64",
    )
    prefix = bytes.fromhex("fd00000100020003") + bytes(4)
    assert zone.names6 == {
        name: tuple(prefix + each for each in addresses) for name, addresses in zone.names.items()
    }
    assert zone.names6[b"web.app"] == (prefix + bytes([10, 0, 0, 2]),)
    assert zone.names6[b"box"] == (prefix + bytes([10, 0, 0, 9]),)
    assert zone.pointers["fd00:1:2:3::a00:2"] == zone.pointers["10.0.0.2"] == "web.app"
    assert zone.pointers["fd00:1:2:3::a00:9"] == "web.9.t9.app"


def test_nothing_is_remembered_of_what_is_gone() -> None:
    records = known(endpoint(9), endpoint(10, service="z"))
    records.apply(
        DataplaneChanges(
            removed_endpoints=(("n", "t9"), ("n", "t10"), ("n", "never")),
            removed_services=(("n", "s"), ("n", "never")),
            removed_networks=("n",),
            removed_peers=("a", "b"),
        )
    )
    assert not any(held for name, held in vars(records).items() if name != "here")
