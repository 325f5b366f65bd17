"""What a node has besides processors and memory."""

import pytest

from cluster.engine_json import spec_json
from cluster.errors import InvalidArgument
from cluster.generic_resources import environment, parse


def test_names_and_numbers() -> None:
    found = spec_json(parse(["gpu=one", " gpu = two", "gpu=one", "ssd=4", "fpga=0"]))
    assert found == [
        {"NamedResourceSpec": {"Kind": "gpu", "Value": "one"}},
        {"NamedResourceSpec": {"Kind": "gpu", "Value": "two"}},
        {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 4}},
        {"DiscreteResourceSpec": {"Kind": "fpga", "Value": 0}},
    ]


def test_a_task_learns_what_it_was_given() -> None:
    given = parse(["gpu=one", "gpu=two", "Ssd=4"])
    assert environment(given) == {"DOCKER_RESOURCE_GPU": "one,two", "DOCKER_RESOURCE_SSD": "4"}
    assert environment(()) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["gpu"], "incorrect term gpu"),
        (["=1"], "incorrect term"),
        (["gpu="], "incorrect term"),
        (["a=b=c"], "incorrect term"),
        (["gpu=one", "gpu=2"], "mixed discrete and named"),
        (["ssd=1", "ssd=2"], "mixed discrete and named"),
        (["ssd=-1"], "negative resource ssd"),
        ([f"ssd={1 << 63}"], "resource ssd"),
    ],
)
def test_malformed(texts: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse(texts)
