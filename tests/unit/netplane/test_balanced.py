"""What connections are led to follows the records, change by change."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.dataplane import (
    DataplaneChanges,
    EndpointRecord,
    NetworkRecord,
    Protocol,
    PublishedPort,
    ServiceRecord,
)
from netplane.balanced import Balanced
from netplane.port_rules import PortKey, Published
from netplane.records import ClusterRecords

_NETWORKS = (
    NetworkRecord(id="app", name="app", driver="overlay"),
    NetworkRecord(id="ing", name="ingress", driver="overlay", ingress=True),
)


def service(number: int, network: str, *, vip: bool = True) -> ServiceRecord:
    ports = (PublishedPort(protocol=Protocol.UDP, published=80 + number, target=8080),)
    return ServiceRecord(
        network_id=network,
        service_id=f"s{number}",
        name=f"s{number}",
        vip=f"10.0.1.{number}/24" if vip else "",
        ports=ports if network == "ing" else (),
    )


def endpoint(number: int, network: str, *, serving: bool = True) -> EndpointRecord:
    return EndpointRecord(
        network_id=network,
        task_id=f"t{number}",
        task_name=f"t{number}",
        service_id=f"s{number % 3}",
        node_id="a",
        address=f"10.0.0.{number}/24",
        serving=serving,
    )


_NETWORK = st.sampled_from(["app", "ing"])
_STEP = st.one_of(
    st.builds(
        lambda number, network, serving: DataplaneChanges(
            endpoints=(endpoint(number, network, serving=serving),)
        ),
        st.integers(1, 9),
        _NETWORK,
        st.booleans(),
    ),
    st.builds(
        lambda number, network: DataplaneChanges(removed_endpoints=((network, f"t{number}"),)),
        st.integers(1, 9),
        _NETWORK,
    ),
    st.builds(
        lambda number, network, vip: DataplaneChanges(services=(service(number, network, vip=vip),)),
        st.integers(0, 2),
        _NETWORK,
        st.booleans(),
    ),
    st.builds(
        lambda number, network: DataplaneChanges(removed_services=((network, f"s{number}"),)),
        st.integers(0, 2),
        _NETWORK,
    ),
    st.builds(lambda network: DataplaneChanges(removed_networks=(network,)), _NETWORK),
    st.just(DataplaneChanges(networks=_NETWORKS)),
)


@given(st.lists(_STEP, max_size=12), st.sets(st.integers(1, 9).map("t{}".format)))
def test_a_history_of_changes_is_worth_its_outcome(
    steps: list[DataplaneChanges], withdrawn: set[str]
) -> None:
    records = ClusterRecords()
    followed = Balanced(records, withdrawn, ())
    vips: dict[str, dict[str, tuple[str, ...]]] = {}
    ports: dict[PortKey, Published] = {}
    followed.update(records.apply(DataplaneChanges(full=True, networks=_NETWORKS)))
    for step in steps:
        led = backends(followed)
        change = followed.update(records.apply(step))
        for network_id, (before, after) in change.vips.items():
            known = vips.setdefault(network_id, {})
            for vip, addresses in before.items():
                assert known.pop(vip) == addresses
            known.update(after)
        for port, published in change.ports[0].items():
            assert ports.pop(port) == published
        ports.update(change.ports[1])
        assert followed.take_lost().addresses == led - backends(followed)
    at_once = Balanced(records, withdrawn, ())
    everything = records.apply(DataplaneChanges())
    everything.add_whole(["app", "ing"])
    at_once.update(everything)
    assert followed.ports == ports
    assert {name: each for name, each in vips.items() if each} == followed.vips
    assert unordered(followed) == unordered(at_once)


def backends(balanced: Balanced) -> set[str]:
    found = {
        address for vips in balanced.vips.values() for addresses in vips.values() for address in addresses
    }
    return found | {address for each in balanced.ports.values() for address in each.backends}


def unordered(balanced: Balanced) -> object:
    vips = {
        (network_id, vip): set(addresses)
        for network_id, known in balanced.vips.items()
        for vip, addresses in known.items()
    }
    return vips, balanced.ports


def test_a_port_passes_from_one_service_to_another() -> None:
    records = ClusterRecords()
    balanced = Balanced(records, (), ())
    one = service(1, "ing")
    other = ServiceRecord(network_id="ing", service_id="s2", name="s2", ports=one.ports)
    balanced.update(
        records.apply(
            DataplaneChanges(
                full=True,
                networks=_NETWORKS,
                services=(one,),
                endpoints=(endpoint(1, "ing"), endpoint(2, "ing")),
            )
        )
    )
    change = balanced.update(records.apply(DataplaneChanges(services=(other,))))
    assert [each.backends for each in change.ports[1].values()] == [("10.0.0.2",)]
    assert balanced.update(records.apply(DataplaneChanges(removed_services=(("ing", "s1"),)))).ports == (
        {},
        {},
    )
    assert [each.backends for each in balanced.ports.values()] == [("10.0.0.2",)]
