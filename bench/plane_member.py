"""One node's network plane that knows many services, asked by JSON lines: `python -m bench.plane_member
FOLDER ADDRESS SERVICES CGROUP`.

Every service has a virtual address and a published port, and five endpoints. Those of the first are sandboxes
of this node; all others' are said to be on another. `LOCAL` names the sandboxes.
"""

import asyncio
import ipaddress
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.report import percentile
from cluster.dataplane import (
    DataplaneChanges,
    EndpointRecord,
    NetworkRecord,
    PeerRecord,
    Protocol,
    PublishedPort,
    ServiceRecord,
)
from cluster.objects import Subnet
from cluster.seams import SystemClock
from netplane.model import Attachment, SandboxSpec
from netplane.plane import NetPlane

ENDPOINTS = 5
INGRESS, APP = "ingress-id", "app-id"
FIRST_PORT = 20000
TARGET = 81
CLIENT = "client"
PAUSE = 0.01
_PREFIX = {INGRESS: ipaddress.IPv4Address("10.4.0.0"), APP: ipaddress.IPv4Address("10.5.0.0")}


def address(network: str, number: int) -> str:
    """An address of a network, with its prefix."""
    return f"{_PREFIX[network] + number}/16"


def virtual(service: int) -> str:
    """A service's virtual address."""
    return address(APP, 256 + service).partition("/")[0]


def endpoint(network: str, service: int, number: int) -> EndpointRecord:
    """A task's place."""
    task = f"task-{service}-{number}"
    return EndpointRecord(
        network_id=network,
        task_id=task,
        task_name=f"service-{service}.{number}.{task}",
        service_id=f"service-{service}",
        node_id="node2" if service else "node1",
        address=address(network, 8192 + service * ENDPOINTS + number),
    )


def everything(services: int, own: str) -> DataplaneChanges:
    """All that managers tell of such a cluster."""
    return DataplaneChanges(
        full=True,
        networks=tuple(
            NetworkRecord(
                id=each,
                name=name,
                driver="overlay",
                subnets=(Subnet(subnet=f"{_PREFIX[each]}/16", gateway=f"{_PREFIX[each] + 1}"),),
                vni=vni,
                ingress=each == INGRESS,
            )
            for each, name, vni in ((INGRESS, "ingress", 4096), (APP, "app", 4097))
        ),
        peers=(
            PeerRecord(node_id="node1", address=own, addresses={INGRESS: address(INGRESS, 2)}),
            PeerRecord(node_id="node2", address="192.0.2.200", addresses={INGRESS: address(INGRESS, 3)}),
        ),
        services=tuple(
            record
            for i in range(services)
            for record in (
                ServiceRecord(
                    network_id=INGRESS,
                    service_id=f"service-{i}",
                    name=f"service-{i}",
                    vip=address(INGRESS, 256 + i),
                    ports=(PublishedPort(protocol=Protocol.TCP, published=FIRST_PORT + i, target=TARGET),),
                ),
                ServiceRecord(
                    network_id=APP, service_id=f"service-{i}", name=f"service-{i}", vip=f"{virtual(i)}/16"
                ),
            )
        ),
        endpoints=tuple(
            endpoint(network, i, number)
            for i in range(services)
            for number in range(ENDPOINTS)
            for network in (INGRESS, APP)
        ),
    )


async def sandboxes(plane: NetPlane) -> dict[str, str]:
    """Make the first service's tasks and a client; their namespaces."""
    found = {}
    for number in range(ENDPOINTS):
        task = endpoint(APP, 0, number)
        made = await plane.create_sandbox(
            SandboxSpec(
                id=task.task_id,
                hostname=task.task_id,
                attachments=tuple(Attachment(n, endpoint(n, 0, number).address) for n in (APP, INGRESS)),
                task_id=task.task_id,
                service_id="service-0",
            )
        )
        found[task.task_id] = str(made.netns)
    made = await plane.create_sandbox(
        SandboxSpec(id=CLIENT, hostname=CLIENT, attachments=(Attachment(APP, address(APP, 16)),))
    )
    return found | {CLIENT: str(made.netns)}


async def changes(plane: NetPlane, services: int, networks: list[str], count: int) -> dict[str, float]:
    """Take single endpoints out and put them back; what each change took, in milliseconds.

    Between two is a pause, so that what the plane does later for the first is not in the second's time; it
    is in `cpu`, the process's CPU time for a change.
    """
    rng, took, begun = random.Random(1), [], time.process_time()
    for _ in range(count // 2):
        service, number = rng.randrange(1, services), rng.randrange(ENDPOINTS)
        for serving in (False, True):
            records = tuple(replace(endpoint(each, service, number), serving=serving) for each in networks)
            started = time.perf_counter()
            await plane.apply(DataplaneChanges(endpoints=records))
            took.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(PAUSE)
    await asyncio.sleep(0.5)
    return {
        "p50": percentile(took, 0.5),
        "p95": percentile(took, 0.95),
        "max": max(took),
        "cpu": (time.process_time() - begun) * 1000 / len(took),
    }


async def main() -> None:
    """Serve until stdin ends."""
    folder, own, services = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    plane = NetPlane(
        state_dir=folder / "state",
        run_dir=folder / "run",
        node_hostname="node1",
        clock=SystemClock(),
        spare=0,
        cgroup=sys.argv[4],
    )
    await plane.start()
    await plane.join("node1", own, 4789)
    begun = time.perf_counter()
    await plane.apply(everything(services, own))
    first = time.perf_counter() - begun
    answer(await sandboxes(plane) | {"first": first})
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, *words = json.loads(line)
        if verb == "changes":
            answer(await changes(plane, services, *words))
        elif verb == "serving":  # of one task of the first service
            records = [replace(endpoint(n, 0, words[0]), serving=words[1]) for n in (INGRESS, APP)]
            await plane.apply(DataplaneChanges(endpoints=tuple(records)))
            answer("done")


def answer(value: Any) -> None:
    """A line for the asker."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
