"""Addresses that nodes give to tasks, in networks that leave it to them: a node's word goes to all others."""

import pytest

from cluster.objects import ContainerStatus, NetworkAttachment, Task, TaskStatus
from cluster.states import TaskState
from manager.dispatcher.dataplane import endpoint_records
from manager.store import View


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (("192.0.2.7/24", "2001:db8::7/64"), "192.0.2.7/24"),
        (("2001:db8::7/64",), ""),
        ((), ""),
        (("not.an.address",), ""),
        (("192.0.2.7/24 }\nflush ruleset",), ""),
        (("fe80::1%a.b",), ""),
    ],
)
def test_only_an_ipv4_address_is_one(said: tuple[str, ...], taken: str) -> None:
    container = ContainerStatus(container_id="c", addresses={"lan": said})
    task = Task(
        id="t1",
        node_id="n1",
        networks=(NetworkAttachment(network_id="lan"),),
        status=TaskStatus(state=TaskState.RUNNING, container=container),
    )
    found = endpoint_records(View.empty(), task)
    assert [each.address for each in found.values()] == ([taken] if taken else [])
