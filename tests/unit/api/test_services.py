"""/services, as clients use it."""

import base64
import json

import pytest

from cluster.objects import Network, Secret, Service, Task, TaskStatus
from cluster.spec import NetworkSpec, SecretSpec
from cluster.states import TaskState
from tests.unit.api.manager import Api, service_body


async def test_create_answers_as_dockerd(api: Api) -> None:
    status, answer = await api("POST", "/v1.50/services/create", service_body())
    assert status == 201
    assert sorted(answer) == ["ID", "Warnings"]
    assert answer["Warnings"] is None
    assert len(answer["ID"]) == 25


async def test_replicas_left_out_are_one(api: Api) -> None:
    id = await api.service()
    assert (await api.ok("GET", f"/services/{id}"))["Spec"]["Mode"] == {"Replicated": {"Replicas": 1}}


async def test_a_service_is_found_by_id_name_and_prefix(api: Api) -> None:
    id = await api.service("web")
    for what in (id, "web", id[:6]):
        assert (await api.ok("GET", f"/v1.41/services/{what}"))["ID"] == id
    status, problem = await api("GET", "/services/nope")
    assert (status, problem) == (404, {"message": "service nope not found"})


async def test_an_ambiguous_prefix_says_so(api: Api) -> None:
    await api.put(Service(id="ab1"), Service(id="ab2", spec=Service(id="x").spec.__class__(name="other")))
    status, problem = await api("GET", "/services/ab")
    assert status == 400
    assert problem["message"] == "service ab is ambiguous (2 matches found)"


async def test_a_taken_name_is_a_conflict(api: Api) -> None:
    await api.service("web")
    before = api.index
    status, problem = await api("POST", "/services/create", service_body("web"))
    assert status == 409
    assert "service web already exists" in problem["message"]
    assert len(await api.ok("GET", "/services")) == 1
    assert api.index == before


@pytest.mark.parametrize(
    "filters",
    [
        {"name": ["we"]},
        {"name": {"web": True}},
        {"label": ["tier=front"]},
        {"label": {"tier": True}},
        {"mode": ["replicated"], "label": ["tier"]},
        {"runtime": ["container"], "name": ["web"]},
    ],
)
async def test_filters_in_both_encodings(api: Api, filters: dict[str, object]) -> None:
    id = await api.service("web", Labels={"tier": "front"})
    await api.service("db", Mode={"Global": {}}, Labels={"other": ""})
    found = await api.ok("GET", f"/services?filters={json.dumps(filters)}")
    assert [service["ID"] for service in found] == [id]


@pytest.mark.parametrize("filters", ['{"color":["red"]}', '["name"]', "{", '{"name":3}'])
async def test_filters_that_make_no_sense(api: Api, filters: str) -> None:
    status, problem = await api("GET", f"/services?filters={filters}")
    assert status == 400
    assert problem["message"]


async def test_update_keeps_the_previous_spec_and_rolls_back(api: Api) -> None:
    id = await api.service()
    first = await api.ok("GET", f"/services/{id}")
    changed = service_body(TaskTemplate={"ContainerSpec": {"Image": "nginx:2"}})
    path = f"/services/{id}/update?version={first['Version']['Index']}"
    assert await api.ok("POST", path, changed) == {"Warnings": None}
    status, problem = await api("POST", path, changed)
    assert status == 400
    assert "update out of sequence" in problem["message"]
    second = await api.ok("GET", f"/services/{id}")
    assert second["PreviousSpec"] == first["Spec"]
    assert second["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == "nginx:2"
    back = f"/services/{id}/update?version={second['Version']['Index']}&rollback=previous"
    await api.ok("POST", back, changed)
    third = await api.ok("GET", f"/services/{id}")
    assert third["Spec"] == first["Spec"]
    assert third["UpdateStatus"]["State"] == "rollback_started"
    stored = api.manager.store.view().get(Service, id)
    assert stored is not None
    assert stored.spec_version == first["Version"]["Index"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Name": "other"}, 501),
        ({"Mode": {"Global": {}}}, 501),
        ({"TaskTemplate": {}}, 400),
    ],
)
async def test_what_an_update_may_not_change(api: Api, change: dict[str, object], status: int) -> None:
    id = await api.service()
    version = (await api.ok("GET", f"/services/{id}"))["Version"]["Index"]
    before = api.index
    got, problem = await api("POST", f"/services/{id}/update?version={version}", {**service_body(), **change})
    assert got == status
    assert problem["message"]
    assert api.index == before


async def test_rollback_without_a_previous_spec(api: Api) -> None:
    id = await api.service()
    version = (await api.ok("GET", f"/services/{id}"))["Version"]["Index"]
    status, problem = await api(
        "POST", f"/services/{id}/update?version={version}&rollback=previous", service_body()
    )
    assert status == 400
    assert "does not have a previous spec" in problem["message"]


async def test_insert_defaults(api: Api) -> None:
    id = await api.service()
    spec = (await api.ok("GET", f"/services/{id}?insertDefaults=true"))["Spec"]
    assert spec["TaskTemplate"]["RestartPolicy"]["Delay"] == 5_000_000_000
    assert spec["UpdateConfig"]["Parallelism"] == 1
    assert spec["EndpointSpec"]["Mode"] == "vip"
    assert spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 10_000_000_000
    assert "UpdateConfig" not in (await api.ok("GET", f"/services/{id}"))["Spec"]


async def test_status_counts_tasks(api: Api) -> None:
    id = await api.service(Mode={"Replicated": {"Replicas": 3}})
    running = TaskStatus(state=TaskState.RUNNING)
    await api.put(
        Task(id="t1", service_id=id, slot=1, status=running, desired_state=TaskState.RUNNING),
        Task(id="t2", service_id=id, slot=2, desired_state=TaskState.RUNNING),
        Task(id="t0", service_id=id, slot=1, status=running, desired_state=TaskState.SHUTDOWN),
    )
    (service,) = await api.ok("GET", "/services?status=true")
    assert service["ServiceStatus"] == {"RunningTasks": 1, "DesiredTasks": 3, "CompletedTasks": 0}
    assert "ServiceStatus" not in (await api.ok("GET", "/services"))[0]


async def test_networks_are_resolved_to_ids(api: Api) -> None:
    await api.put(
        Network(id="net1", spec=NetworkSpec(name="front")),
        Network(id="ing1", spec=NetworkSpec(name="ingress", ingress=True)),
    )

    def with_network(target: str) -> dict[str, object]:
        template = {"ContainerSpec": {"Image": "nginx"}, "Networks": [{"Target": target}]}
        return service_body(TaskTemplate=template)

    status, problem = await api("POST", "/services/create", with_network("missing"))
    assert (status, problem["message"]) == (
        404,
        "network missing not found among the swarm's networks; "
        "a node's own networks can't be used by services",
    )
    status, problem = await api("POST", "/services/create", with_network("ingress"))
    assert status == 400
    assert "ingress" in problem["message"]
    id = (await api.ok("POST", "/services/create", with_network("front")))["ID"]
    spec = (await api.ok("GET", f"/services/{id}"))["Spec"]
    assert spec["TaskTemplate"]["Networks"] == [{"Target": "net1"}]
    status, problem = await api("DELETE", "/networks/front")
    assert status == 400
    assert "in use by service web" in problem["message"]


async def test_networks_in_their_old_place(api: Api) -> None:
    """Beside the template, where API 1.24 had them."""
    await api.put(Network(id="net1", spec=NetworkSpec(name="front")))
    attached = {"Target": "front", "Aliases": ["www"], "DriverOpts": {"a": "b"}}
    id = await api.service(Networks=[attached])
    spec = (await api.ok("GET", f"/services/{id}"))["Spec"]
    assert spec["TaskTemplate"]["Networks"] == [{**attached, "Target": "net1"}]


async def test_tasks_of_services_are_containers(api: Api) -> None:
    """As with dockerd, a service can't be an attachment of a container that is no task's."""
    template = {"Runtime": "attachment", "NetworkAttachmentSpec": {"ContainerID": "c"}}
    status, problem = await api("POST", "/services/create", service_body(TaskTemplate=template))
    assert (status, "'attachment' is not supported" in problem["message"]) == (501, True)


async def test_published_ports_are_exclusive(api: Api) -> None:
    def publish(mode: str) -> dict[str, object]:
        return {"Ports": [{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": mode}]}

    await api.service("web", EndpointSpec=publish("ingress"))
    for mode in ("ingress", "host"):
        status, problem = await api("POST", "/services/create", service_body("b", EndpointSpec=publish(mode)))
        assert status == 400
        assert "port '8080' is already in use by service 'web'" in problem["message"]


async def test_secret_references_must_exist(api: Api) -> None:
    container = {"Image": "a", "Secrets": [{"SecretID": "s1", "SecretName": "key", "File": {"Name": "key"}}]}
    status, problem = await api(
        "POST", "/services/create", service_body(TaskTemplate={"ContainerSpec": container})
    )
    assert (status, problem["message"]) == (400, "secret not found: key")
    await api.put(Secret(id="s1", spec=SecretSpec(name="key", data="eA==")))
    await api.service(TaskTemplate={"ContainerSpec": container})
    status, problem = await api("DELETE", "/secrets/key")
    assert status == 400
    assert "secret 'key' is in use by the following service: web" in problem["message"]


async def test_registry_credentials_are_kept_and_never_shown(api: Api) -> None:
    auth = base64.urlsafe_b64encode(b'{"username":"u","password":"secret"}').decode()
    answer = await api.ok("POST", "/services/create", service_body(), **{"X-Registry-Auth": auth})
    stored = api.manager.store.view().get(Service, answer["ID"])
    assert stored is not None
    assert stored.registry_auth == auth
    assert "secret" not in json.dumps(await api.ok("GET", "/services"))
    status, _ = await api("POST", "/services/create", service_body("b"), **{"X-Registry-Auth": "%%"})
    assert status == 400


async def test_delete(api: Api) -> None:
    id = await api.service()
    assert await api("DELETE", f"/services/{id}") == (200, b"")
    status, _ = await api("DELETE", f"/services/{id}")
    assert status == 404
