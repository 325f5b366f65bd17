"""Orders of starting and stopping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.stack.order import Circle, label, start_order, stop_order

_NAMES = st.sampled_from("abcdefg")
_GRAPHS = st.dictionaries(_NAMES, st.dictionaries(_NAMES, st.just("service_started"), max_size=3))


def _ordered(graph: dict[str, dict[str, str]]) -> list[str] | Circle:
    try:
        return start_order(graph)
    except Circle as circle:
        return circle


@given(_GRAPHS)
def test_dependencies_come_first_or_the_circle_is_real(graph: dict[str, dict[str, str]]) -> None:
    order = _ordered(graph)
    if isinstance(order, Circle):
        assert order.names[0] == order.names[-1]
        for one, next_one in zip(order.names, order.names[1:], strict=False):
            assert next_one in graph[one]
        return
    assert sorted(order) == sorted(graph)
    for name, others in graph.items():
        assert all(order.index(other) < order.index(name) for other in others if other in graph)


@given(_GRAPHS)
def test_dependents_stop_first(graph: dict[str, dict[str, str]]) -> None:
    groups = stop_order(graph)
    place = {name: number for number, group in enumerate(groups) for name in group}
    assert sorted(place) == sorted(graph)
    if isinstance(_ordered(graph), Circle):
        return
    for name, others in graph.items():
        assert all(place[name] < place[other] for other in others if other in graph)


def test_a_long_chain() -> None:
    graph = {f"{n:05}": {f"{n + 1:05}": "service_started"} for n in range(5000)}
    assert start_order(graph)[0] == "04999"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("db:service_healthy,x", {"db": "service_healthy", "x": "service_started"}),
        ("", {}),
        (",:,a:what", {"a": "service_started"}),
    ],
)
def test_labels(text: str, found: dict[str, str]) -> None:
    assert label(text) == found
