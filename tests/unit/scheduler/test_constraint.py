"""Constraints read and match as SwarmKit's do."""

import pytest

from cluster.errors import InvalidArgument
from cluster.objects import EngineDescription, Node, NodeDescription, NodeStatus
from cluster.spec import NodeSpec, Platform
from cluster.states import Role
from manager.scheduler import constraint

NODE = Node(
    id="node1",
    spec=NodeSpec(labels={"disk": "SSD", "Zone": "a"}),
    description=NodeDescription(
        hostname="Host1",
        platform=Platform(architecture="x86_64", os="linux"),
        engine=EngineDescription(labels={"gpu": "yes"}),
    ),
    status=NodeStatus(address="10.1.2.3"),
    role=Role.MANAGER,
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("node.id==node1", True),
        ("node.id!=node1", False),
        ("node.hostname == host1", True),
        ("NODE.HostName==HOST1", True),
        ("node.role==manager", True),
        ("node.role!=Manager", False),
        ("node.platform.os==linux", True),
        ("node.platform.arch==X86_64", True),
        ("node.platform.arch==amd64", True),
        ("node.platform.arch!=amd64", False),
        ("node.platform.arch==arm64", False),
        ("node.labels.disk==ssd", True),
        ("Node.Labels.disk==ssd", True),
        ("node.labels.Disk==ssd", False),
        ("node.labels.zone!=a", True),
        ("node.labels.missing!=x", True),
        ("node.labels.missing==x", False),
        ("engine.labels.gpu==yes", True),
        ("engine.labels.gpu!=yes", False),
        ("node.ip==10.1.2.3", True),
        ("node.ip!=10.1.2.3", False),
        ("node.ip==10.1.0.0/16", True),
        ("node.ip!=10.2.0.0/16", True),
        ("node.ip==nonsense", False),
        ("node.ip!=nonsense", False),
        ("node.colour==red", False),
        ("node.colour!=red", False),
    ],
)
def test_matching(expression: str, expected: bool) -> None:
    assert constraint.matches(constraint.parse([expression]), NODE) is expected


def test_all_must_hold() -> None:
    both = constraint.parse(["node.role==manager", "node.labels.disk==hdd"])
    assert not constraint.matches(both, NODE)
    assert str(both[1]) == "node.labels.disk==hdd"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("node.role", "expected one operator from ==, !="),
        ("node role==manager", "key 'node role' is invalid"),
        ("==x", "key '' is invalid"),
        ("node.role==", "value '' is invalid"),
        ("node.role==a{b}", "value 'a{b}' is invalid"),
    ],
)
def test_what_cannot_be_read_is_named(expression: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        constraint.parse([expression])
    assert message in str(refused.value)
    assert expression in str(refused.value)
