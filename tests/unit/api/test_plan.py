"""POST /shoal/plan: what a change would do, told without doing it."""

import base64
from typing import Any

import pytest
from msgspec.structs import replace

from cluster.objects import Network, Node, NodeDescription, NodeStatus, Service, Task
from cluster.spec import NodeSpec, Resources
from cluster.states import NodeState
from manager.api import plan
from manager.planning import Simulation
from manager.store import Transaction, View
from manager.store.tables import KINDS
from tests.unit.api.manager import Api, service_body

GB = 1 << 30


def _everything(view: View) -> dict[str, list[Any]]:
    return {kind: list(view.all(cls)) for kind, cls in KINDS.items()}


async def _plan(api: Api, **proposal: Any) -> dict[str, Any]:
    """The answer, with proof that nothing was written."""
    before, writes = _everything(api.manager.store.view()), api.index
    answer: dict[str, Any] = await api.ok("POST", "/shoal/plan", proposal)
    assert api.index == writes
    assert _everything(api.manager.store.view()) == before
    assert answer["Complete"]
    return answer


async def _become_real(api: Api) -> None:
    """Run what there is: the services get the tasks that the simulation gives them."""
    view = api.manager.store.view()
    simulation = Simulation(view, api.manager.clock.now(), api.manager.rng)
    await simulation.run({service.id for service in view.all(Service)})

    def write(tx: Transaction) -> None:
        for network in simulation.view.all(Network):
            stored = tx.get(Network, network.id)
            if stored is not None:
                tx.update(replace(network, version=stored.version))
        for service in simulation.view.all(Service):
            stored_service = tx.get(Service, service.id)
            assert stored_service is not None
            tx.update(replace(stored_service, endpoint=service.endpoint, update_status=service.update_status))
        for task in simulation.view.all(Task):
            old = tx.get(Task, task.id)
            if old is None:
                tx.create(task)
            else:
                tx.update(replace(task, version=old.version))

    await api.manager.store.update(write)


async def _nodes(api: Api, *names: str, memory: int = 4 * GB) -> None:
    for name in names:
        description = NodeDescription(
            hostname=name, resources=Resources(nano_cpus=4 * 10**9, memory_bytes=memory)
        )
        await api.node(name, name, description=description, spec=NodeSpec(labels={"zone": name}))


def _body(name: str = "web", replicas: int = 2, image: str = "nginx:1", **template: Any) -> dict[str, Any]:
    task = {"ContainerSpec": {"Image": image}, **template}
    return service_body(name, Mode={"Replicated": {"Replicas": replicas}}, TaskTemplate=task)


async def _deployed(api: Api, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        await api.ok("POST", "/services/create", body)
    await _become_real(api)


def _at(places: list[dict[str, Any]]) -> list[str]:
    return sorted(place["Node"] for place in places)


@pytest.fixture
async def cluster(api: Api) -> Api:
    """The API of a cluster with two nodes."""
    founder = api.manager.store.view().get(Node, "founder")
    if founder is not None:
        await api.manager.store.update(
            lambda tx: tx.update(replace(founder, status=NodeStatus(state=NodeState.DOWN)))
        )
    await _nodes(api, "a", "b")
    return api


async def test_a_new_service(cluster: Api) -> None:
    answer = await _plan(cluster, Services=[_body()])
    (service,) = answer["Services"]
    assert service["Action"] == "create"
    assert _at(service["Starts"]) == ["a", "b"]
    assert "Service web would be created." in answer["Sentences"]
    assert "Service web: 2 tasks would start: 1 on a, 1 on b." in answer["Sentences"]


async def test_a_plan_of_too_many_tasks_is_refused(cluster: Api) -> None:
    status, answer = await cluster("POST", "/shoal/plan", {"Services": [_body(replicas=10_001)]})
    assert status == 400
    assert "10001 tasks" in answer["message"]


async def test_what_is_there_already(cluster: Api) -> None:
    await _deployed(cluster, _body())
    answer = await _plan(cluster, Services=[_body()])
    (service,) = answer["Services"]
    assert (service["Action"], service["Kept"]) == ("keep", 2)
    assert answer["Sentences"] == ["Service web would stay as it is: 2 tasks kept."]


async def test_an_update_replaces_tasks_where_they_are_or_moves_them(cluster: Api) -> None:
    await _deployed(cluster, _body(replicas=3))
    answer = await _plan(cluster, Services=[_body(replicas=3, image="nginx:2")])
    (service,) = answer["Services"]
    assert service["Changes"] == ["TaskTemplate.ContainerSpec.Image"]
    assert len(service["Replaced"]) + len(service["Moves"]) == 3
    assert service["Kept"] == 0
    assert (service["Order"], service["Parallelism"]) == ("stop-first", 1)
    assert any("1 at a time, each old task stops before the new one starts" in s for s in answer["Sentences"])
    answer = await _plan(
        cluster, Services=[_body(image="nginx:2", Placement={"Constraints": ["node.hostname==b"]})]
    )
    (service,) = answer["Services"]
    assert {(move["Source"], move["Target"]) for move in service["Moves"]} == {("a", "b")}


async def test_scaling_touches_no_other_task(cluster: Api) -> None:
    await _deployed(cluster, _body(replicas=2))
    (service,) = (await _plan(cluster, Services=[_body(replicas=5)]))["Services"]
    assert (len(service["Starts"]), service["Kept"], service["Stops"]) == (3, 2, [])
    answer = await _plan(cluster, Services=[_body(replicas=1)])
    (service,) = answer["Services"]
    assert (len(service["Stops"]), service["Kept"]) == (1, 1)
    assert any("1 task would stop" in sentence for sentence in answer["Sentences"])


async def test_what_fits_nowhere_says_why(cluster: Api) -> None:
    heavy = {"Reservations": {"MemoryBytes": 3 * GB}}
    answer = await _plan(cluster, Services=[_body(replicas=3, Resources=heavy)])
    (service,) = answer["Services"]
    assert len(service["Starts"]) == 2
    (misfit,) = service["Unplaced"]
    assert "insufficient resources on" in misfit["Reason"]
    (sentence,) = [s for s in answer["Sentences"] if "fit nowhere" in s]
    assert "1 task would fit nowhere" in sentence
    assert "insufficient resources" in sentence


async def test_an_update_that_gets_stuck_keeps_what_runs(cluster: Api) -> None:
    await _deployed(cluster, _body(replicas=2))
    stuck = _body(replicas=2, image="nginx:2", Placement={"Constraints": ["node.labels.zone==nowhere"]})
    answer = await _plan(
        cluster, Services=[{**stuck, "UpdateConfig": {"Parallelism": 1, "Order": "start-first"}}]
    )
    (service,) = answer["Services"]
    assert service["Kept"] == 2
    assert [m["Reason"] for m in service["Unplaced"]]
    assert any("the old task would go on" in sentence for sentence in answer["Sentences"])
    assert service["Outdated"] == 2
    waits = "Service web: the update would wait there, 2 of them with the old specification."
    assert waits in answer["Sentences"]


async def test_removing_makes_room(cluster: Api) -> None:
    heavy = {"Reservations": {"MemoryBytes": 3 * GB}}
    await _deployed(cluster, _body("one", 2, Resources=heavy))
    await _deployed(cluster, _body("two", 1, Resources=heavy))
    answer = await _plan(cluster, Remove=["one"])
    one, two = answer["Services"]
    assert (one["Action"], len(one["Stops"])) == ("remove", 2)
    assert (two["Name"], len(two["Starts"])) == ("two", 1)
    assert "Service two waits for nodes and would get them." in answer["Sentences"]


async def test_global_services_and_jobs(cluster: Api) -> None:
    daemon = service_body("daemon", Mode={"Global": {}})
    job = service_body("job", Mode={"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 3}})
    answer = await _plan(cluster, Services=[daemon, job])
    found = {service["Name"]: service for service in answer["Services"]}
    assert _at(found["daemon"]["Starts"]) == ["a", "b"]
    assert len(found["job"]["Starts"]) == 3


async def test_a_stack_with_all_that_it_brings(cluster: Api) -> None:
    data = base64.b64encode(b"x").decode()
    reference = {
        "File": {"Name": "k", "UID": "0", "GID": "0", "Mode": 292},
        "SecretID": "",
        "SecretName": "s_key",
    }
    body = _body("s_web", Networks=[{"Target": "s_net"}])
    body["TaskTemplate"]["ContainerSpec"]["Secrets"] = [reference]
    stack = {
        "Networks": [{"Name": "s_net", "Driver": "overlay"}],
        "Secrets": [{"Name": "s_key", "Data": data}],
        "Services": [body],
    }
    answer = await _plan(cluster, **stack)
    assert [(o["Kind"], o["Name"], o["Action"]) for o in answer["Objects"]] == [
        ("network", "s_net", "create"),
        ("secret", "s_key", "create"),
    ]
    assert len(answer["Services"][0]["Starts"]) == 2


async def test_a_secret_s_new_version_rolls_its_services(cluster: Api) -> None:
    data = base64.b64encode(b"x").decode()
    id = (await cluster.ok("POST", "/secrets/create", {"Name": "key", "Data": data}))["ID"]
    body = _body()
    body["TaskTemplate"]["ContainerSpec"]["Secrets"] = [
        {"File": {"Name": "k", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": id, "SecretName": "key"}
    ]
    await _deployed(cluster, body)
    answer = await _plan(cluster, Secrets=[{"Name": "key", "Data": base64.b64encode(b"y").decode()}])
    assert "Secret key would get version 2." in answer["Sentences"]
    (service,) = answer["Services"]
    assert service["Changes"] == ["TaskTemplate.ContainerSpec.Secrets"]
    assert len(service["Replaced"]) + len(service["Moves"]) == 2


async def test_a_plan_that_takes_too_long_says_so(cluster: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PATIENCE", 0)
    answer = await cluster.ok("POST", "/shoal/plan", {"Services": [service_body("web")]})
    assert not answer["Complete"]
    assert answer["Sentences"]


async def test_a_big_service_is_planned_in_few_steps(cluster: Api) -> None:
    await _deployed(cluster, _body(replicas=150))
    (service,) = (await _plan(cluster, Services=[_body(replicas=150, image="nginx:2")]))["Services"]
    assert len(service["Replaced"]) + len(service["Moves"]) == 150
    assert service["Parallelism"] == 1


@pytest.mark.parametrize(
    ("proposal", "status"),
    [
        ({"Services": [{"Name": "x"}]}, 400),
        ({"Services": 5}, 400),
        ({"Remove": ["nothing"]}, 404),
        ({"Services": [_body(Networks=[{"Target": "nothing"}])]}, 404),
        ({"Networks": [{"Name": ""}]}, 400),
    ],
)
async def test_refusals_are_those_of_the_change_itself(cluster: Api, proposal: Any, status: int) -> None:
    assert (await cluster("POST", "/shoal/plan", proposal))[0] == status
