"""Field names in any case."""

from cluster.spec import ServiceSpec
from cluster.spelling import spelled


def test_names_take_the_declared_spelling_at_every_depth() -> None:
    given = {
        "name": "web",
        "mode": {"replicated": {"REPLICAS": 2}},
        "TaskTemplate": {
            "containerSpec": {"image": "x", "labels": {"Team": "Blue"}},
            "networks": [{"target": "n"}],
        },
        "EndpointSpec": {"ports": [{"targetport": 80}]},
        "Unknown": 1,
    }
    assert spelled(given, ServiceSpec) == {
        "Name": "web",
        "Mode": {"Replicated": {"Replicas": 2}},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "x", "Labels": {"Team": "Blue"}},
            "Networks": [{"Target": "n"}],
        },
        "EndpointSpec": {"Ports": [{"TargetPort": 80}]},
        "Unknown": 1,
    }


def test_the_right_spelling_goes_first() -> None:
    assert spelled({"name": "a", "Name": "b", "NAME": "c"}, ServiceSpec) == {"Name": "b"}


def test_what_is_no_object_passes() -> None:
    assert spelled([1], ServiceSpec) == [1]
    assert spelled({"Mode": "global"}, ServiceSpec) == {"Mode": "global"}
