"""From a task's spec to its container's config."""

from typing import Any

import pytest
from msgspec import convert

from cluster.objects import Task
from cluster.spec import ContainerSpec, DriverConfig, ResourceRequirements, TaskSpec
from worker.agent.container import extra_hosts, log_config, resources
from worker.runtime.model import LogConfig, ResourceLimits

MIB = 1 << 20


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ResourceLimits()),
        (
            {
                "Limits": {"NanoCPUs": 5, "MemoryBytes": 64 * MIB, "Pids": 7},
                "Reservations": {"MemoryBytes": 32 * MIB},
            },
            ResourceLimits(nano_cpus=5, memory=64 * MIB, pids=7, memory_reservation=32 * MIB),
        ),
        # Swarm takes a reservation above the limit, and -1 for no bound.
        (
            {"Limits": {"MemoryBytes": 8 * MIB, "Pids": -1}, "Reservations": {"MemoryBytes": 16 * MIB}},
            ResourceLimits(memory=8 * MIB, memory_reservation=8 * MIB),
        ),
        (
            {"Limits": {"MemoryBytes": MIB}, "SwapBytes": 0, "MemorySwappiness": 0},
            ResourceLimits(memory=MIB, memory_swap=MIB, memory_swappiness=0),
        ),
        (
            {"Limits": {"MemoryBytes": MIB}, "SwapBytes": MIB, "MemorySwappiness": -1},
            ResourceLimits(memory=MIB, memory_swap=2 * MIB),
        ),
        ({"Limits": {"MemoryBytes": MIB}, "SwapBytes": -1}, ResourceLimits(memory=MIB, memory_swap=-1)),
    ],
)
def test_resources(given: dict[str, Any], wanted: ResourceLimits) -> None:
    spec = TaskSpec(resources=convert(given, ResourceRequirements))
    assert resources(Task(id="t", spec=spec)) == wanted


def test_hosts_in_the_form_of_a_hosts_file() -> None:
    spec = ContainerSpec(hosts=["192.0.2.1 db database", "2001:db8::1 six", "host-gateway gate"])
    assert extra_hosts(spec) == (
        "db:192.0.2.1", "database:192.0.2.1", "six:2001:db8::1", "gate:host-gateway",
    )  # fmt: skip


def test_the_log_driver_of_the_task_the_cluster_or_the_node() -> None:
    own, default = DriverConfig(name="none"), DriverConfig(name="local", options={"max-file": "2"})
    assert log_config(Task(id="t", spec=TaskSpec(log_driver=own), log_driver=default)) == LogConfig(
        driver="none"
    )
    assert log_config(Task(id="t", log_driver=default)) == LogConfig(
        driver="local", options={"max-file": "2"}
    )
    assert log_config(Task(id="t")).driver == ""
