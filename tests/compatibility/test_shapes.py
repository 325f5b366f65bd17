"""A manager's answers against the Engine API's description, and against a real dockerd's."""

import copy
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from cluster.objects import (
    ContainerStatus,
    Endpoint,
    EngineDescription,
    Network,
    NetworkAttachment,
    Node,
    Service,
    Subnet,
    Task,
    TaskStatus,
    UpdateStatus,
    VirtualIP,
)
from cluster.spec import PortConfig
from cluster.states import TaskState, UpdateState
from manager.store import Transaction
from tests.compatibility.shapes import Seen, recorded, undescribed
from tests.unit.api.fuzzing import FULL_NETWORK, FULL_SERVICE, SECRET
from tests.unit.api.manager import Api, service_body, start

SERVICE = copy.deepcopy(FULL_SERVICE)
"""With all that was in the services that dockerd told of."""
_CONTAINER = SERVICE["TaskTemplate"]["ContainerSpec"]
_CONTAINER["Healthcheck"] |= {"Timeout": 1_000_000_000, "StartPeriod": 1_000_000_000}
_CONTAINER["Privileges"]["SELinuxContext"] = {"User": "u", "Role": "r", "Type": "t", "Level": "l"}
SERVICE["UpdateConfig"] |= {"MaxFailureRatio": 1.0, "Monitor": 1_000_000_000}
SERVICE["RollbackConfig"] = {**SERVICE["UpdateConfig"], "FailureAction": "pause"}


class Asked:
    """Calls the API and takes down what it answers."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.seen: defaultdict[str, Seen] = defaultdict(Seen)
        self.undescribed: set[str] = set()

    async def __call__(self, operation: str, id: str = "", query: str = "", body: Any = None) -> Any:
        method, path = operation.split()
        status, answer = await self._api(method, path.replace("{id}", id) + query, body)
        told = None if answer == b"" else answer
        if told is not None:
            self.seen[f"{operation} {status}"].add(told)
            troubles = undescribed(operation, status, told)
            self.undescribed |= {f"{operation} {status}: {what}" for what in troubles}
        return answer


def allocated(tx: Transaction) -> None:
    """What the leader's controllers and an agent make of services: addresses, ports, tasks that run."""
    (network,) = (n for n in tx.all(Network) if n.spec.name == "front")
    subnet = Subnet(subnet="10.0.1.0/24", gateway="10.0.1.1")
    tx.update(replace(network, subnets=(subnet,), vni=4097))
    port = PortConfig(protocol="tcp", target_port=80, published_port=8080)
    for service in list(tx.all(Service)):
        spec = service.spec.endpoint_spec
        if spec is not None:
            vip = VirtualIP(network_id=network.id, address="10.0.1.2/24")
            endpoint = Endpoint(spec=spec, ports=(port,), virtual_ips=(vip,))
            update = UpdateStatus(state=UpdateState.COMPLETED, started_at=1, completed_at=2, message="done")
            tx.update(replace(service, endpoint=endpoint, update_status=update, previous_spec=service.spec))
        container = ContainerStatus(container_id="c" * 64, pid=7)
        tx.create(
            Task(
                id=f"task-{service.spec.name}",
                service_id=service.id,
                service_name=service.spec.name,
                slot=1,
                node_id="founder",
                spec=service.spec.task_template,
                desired_state=TaskState.RUNNING,
                status=TaskStatus(
                    state=TaskState.RUNNING,
                    timestamp=1,
                    message="started",
                    container=container,
                    ports=(port,),
                ),
                networks=(NetworkAttachment(network_id=network.id, addresses=("10.0.1.3/24",)),),
            )
        )
    node = tx.get(Node, "founder")
    assert node is not None
    engine = EngineDescription(version="1", plugins=(("Network", "overlay"), ("Volume", "local")))
    tx.update(replace(node, description=replace(node.description, engine=engine)))


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    """All that a manager can be asked, asked."""
    api = await start()
    asked = Asked(api)
    await asked("POST /networks/create", body={"Name": "front", "Labels": {"a": "b"}})
    await asked("POST /networks/create", body={**FULL_NETWORK, "Options": {}})
    full = (await asked("POST /services/create", body=SERVICE))["ID"]
    await asked("POST /services/create", body=service_body("plain", Mode={"Global": {}}))
    await asked("POST /services/create", body=service_body("job", Mode={"ReplicatedJob": {}}))
    for kind in ("secrets", "configs"):
        await asked(f"POST /{kind}/create", body={**SECRET, "Templating": {"Name": "golang"}})
    await api.manager.store.update(allocated)
    for kind, id in (("services", full), ("nodes", "founder"), ("secrets", "key"), ("configs", "key")):
        found = await asked(f"GET /{kind}")
        await asked(f"GET /{kind}/{{id}}", id)
        await asked(f"GET /{kind}/{{id}}", "nothing")
        spec = next(each["Spec"] for each in found if id in (each["ID"], each["Spec"].get("Name")))
        index = (await asked(f"GET /{kind}/{{id}}", id))["Version"]["Index"]
        await asked(f"POST /{kind}/{{id}}/update", id, f"?version={index}", spec)
        await asked(f"POST /{kind}/{{id}}/update", id, "?version=1", spec)
    await asked("GET /services", query="?status=true")
    for id in (full, "plain", "job"):
        await asked("GET /services/{id}", id, "?insertDefaults=true")
    await asked("GET /tasks")
    await asked("GET /tasks/{id}", "task-web")
    await asked("GET /networks")
    await asked("GET /networks/{id}", "front")
    await asked("GET /networks/{id}", "back")
    await asked("GET /networks/{id}", "nothing")
    swarm = await asked("GET /swarm")
    await asked("POST /swarm/update", query=f"?version={swarm['Version']['Index']}", body=swarm["Spec"])
    await asked("GET /swarm/unlockkey")
    for kind, id in (("services", full), ("networks", "back"), ("secrets", "key"), ("configs", "key")):
        await asked(f"DELETE /{kind}/{{id}}", id)
        await asked(f"DELETE /{kind}/{{id}}", "nothing")
    await asked("DELETE /nodes/{id}", "nothing")
    yield asked
    await api.client.close()


async def test_answers_are_as_the_description_says(asked: Asked) -> None:
    assert asked.undescribed == set()


async def test_answers_have_what_dockerd_always_tells(asked: Asked) -> None:
    compared = [answer for answer in asked.seen if answer in recorded()]
    assert len(compared) > 20
    troubles = {answer: asked.seen[answer].unlike_dockerd(answer) for answer in compared}
    assert {answer: found for answer, found in troubles.items() if found} == {}
