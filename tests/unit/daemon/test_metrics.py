"""What Prometheus is told."""

import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from cluster.errors import InvalidArgument
from netplane.errors import NetworkError
from netplane.host_table import Drops
from shoal.daemon import metrics
from shoal.daemon.config import load, metrics_place
from worker.runtime.model import ContainerState, ContainerStatus


def engine(drops: Callable[[], tuple[dict[str, Drops], int]]) -> Any:
    """As much of an engine as is told about."""

    async def read() -> tuple[dict[str, Drops], int]:
        return drops()

    wanted = (ContainerStatus.RUNNING, ContainerStatus.PAUSED, ContainerStatus.EXITED)
    states = [(None, ContainerState(status=status)) for status in wanted]
    return SimpleNamespace(
        id="e1",
        runtime=SimpleNamespace(list=lambda: states),
        network=SimpleNamespace(drops=read, asked=lambda: {"cluster": 7, "others": 2}),
        network_name=lambda network_id: {"n1": 'sh"op'}.get(network_id, network_id),
    )


async def test_all_that_is_told() -> None:
    found = await metrics.read(engine(lambda: ({"n1": Drops(isolated=3, spoofed=1)}, 5)))
    lines = found.splitlines()
    assert 'shoal_network_dropped_packets_total{network="sh\\"op",reason="isolated"} 3' in lines
    assert 'shoal_network_dropped_packets_total{network="sh\\"op",reason="to_host"} 0' in lines
    assert "shoal_network_foreign_frames_total 5" in lines
    assert 'shoal_network_names_total{answered="cluster"} 7' in lines
    for state in ("running", "paused", "stopped"):
        assert f'engine_daemon_container_states_containers{{state="{state}"}} 1' in lines
    for line in lines:
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


async def test_flushed_rules_leave_the_rest() -> None:
    def flushed() -> tuple[dict[str, Drops], int]:
        raise NetworkError("No such file or directory")

    found = await metrics.read(engine(flushed))
    assert "shoal_network_names_total" in found
    assert "dropped" not in found


async def test_they_are_served() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as session:
        await metrics.serve(engine(lambda: ({}, 0)), f"127.0.0.1:{port}", stack)
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == metrics.CONTENT_TYPE
            assert "engine_daemon_engine_info" in await answer.text()


def test_where() -> None:
    assert metrics_place("127.0.0.1:9323") == ("127.0.0.1", 9323)
    assert metrics_place("[::1]:9323") == ("::1", 9323)
    assert metrics_place(":9323") == ("", 9323)
    with pytest.raises(InvalidArgument, match="metrics address"):
        load({"metrics_addr": "9323x"}, None)
