"""What `docker stack deploy` and `rm` count on: the unchanged is left alone, what goes is in no way."""

import base64
from typing import Any

from msgspec.structs import replace

from cluster.objects import Network, NetworkAttachment, Service, Task, TaskStatus, UpdateStatus
from cluster.states import TaskState, UpdateState
from manager.api.networks import user_of
from tests.unit.api.manager import Api, service_body


def assert_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    """A newer version of the same: written, as dockerd does, and nothing begun."""
    assert now["Version"]["Index"] > before["Version"]["Index"]
    passing = ("Version", "UpdatedAt")
    assert {key: value for key, value in now.items() if key not in passing} == {
        key: value for key, value in before.items() if key not in passing
    }


async def test_an_unchanged_service_begins_no_update(api: Api) -> None:
    id = await api.service()
    before = await api.ok("GET", f"/services/{id}")
    await api.ok("POST", f"/services/{id}/update?version={before['Version']['Index']}", before["Spec"])
    assert_same(await api.ok("GET", f"/services/{id}"), before)


async def test_another_order_of_references_is_no_change(api: Api) -> None:
    """The docker command orders secrets by their names, and two references to one secret by chance."""
    data = base64.b64encode(b"x").decode()
    secret = (await api.ok("POST", "/secrets/create", {"Name": "one", "Data": data}))["ID"]
    references = [
        {"SecretID": secret, "SecretName": "one", "File": {"Name": name, "UID": "0", "GID": "0", "Mode": 292}}
        for name in ("one", "again")
    ]
    spec = {"Image": "busybox", "Secrets": references}
    id = (await api.ok("POST", "/services/create", {"Name": "s", "TaskTemplate": {"ContainerSpec": spec}}))[
        "ID"
    ]
    before = await api.ok("GET", f"/services/{id}")
    changed = {**before["Spec"], "TaskTemplate": {"ContainerSpec": {**spec, "Secrets": references[::-1]}}}
    await api.ok("POST", f"/services/{id}/update?version={before['Version']['Index']}", changed)
    assert_same(await api.ok("GET", f"/services/{id}"), before)


async def test_an_update_under_way_is_not_begun_again(api: Api) -> None:
    id = await api.service()
    first = await api.ok("GET", f"/services/{id}")
    stored = api.manager.store.view().get(Service, id)
    assert stored is not None
    status = UpdateStatus(state=UpdateState.UPDATING, started_at=1)
    await api.manager.store.update(
        lambda tx: tx.update(replace(stored, update_status=status, previous_spec=stored.spec))
    )
    before = await api.ok("GET", f"/services/{id}")
    await api.ok("POST", f"/services/{id}/update?version={before['Version']['Index']}", first["Spec"])
    assert_same(await api.ok("GET", f"/services/{id}"), before)
    paused = api.manager.store.view().get(Service, id)
    assert paused is not None
    status = UpdateStatus(state=UpdateState.PAUSED, started_at=1)
    await api.manager.store.update(lambda tx: tx.update(replace(paused, update_status=status)))
    before = await api.ok("GET", f"/services/{id}")
    await api.ok("POST", f"/services/{id}/update?version={before['Version']['Index']}", first["Spec"])
    assert "UpdateStatus" not in await api.ok("GET", f"/services/{id}")


async def test_a_new_credential_is_kept_and_changes_nothing_else(api: Api) -> None:
    id = await api.service()
    before = await api.ok("GET", f"/services/{id}")
    auth = base64.urlsafe_b64encode(b'{"username":"new"}').decode()
    path = f"/services/{id}/update?version={before['Version']['Index']}"
    stored = api.manager.store.view().get(Service, id)
    assert stored is not None
    await api.ok("POST", path, before["Spec"], **{"X-Registry-Auth": auth})
    now = api.manager.store.view().get(Service, id)
    assert now is not None
    assert now.registry_auth == auth
    assert (now.spec, now.spec_version, now.previous_spec) == (stored.spec, stored.spec_version, None)


async def test_the_platforms_of_a_pinned_image_stay(api: Api) -> None:
    template = {
        "ContainerSpec": {"Image": "nginx:1@sha256:" + "a" * 64},
        "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
    }
    made = await api.ok("POST", "/services/create", service_body(TaskTemplate=template))
    before = await api.ok("GET", f"/services/{made['ID']}")
    again = service_body(TaskTemplate={"ContainerSpec": template["ContainerSpec"]})
    await api.ok("POST", f"/services/{made['ID']}/update?version={before['Version']['Index']}", again)
    assert_same(await api.ok("GET", f"/services/{made['ID']}"), before)


async def test_tasks_of_a_service_that_is_gone_do_not_hold_a_network(api: Api) -> None:
    network = (await api.ok("POST", "/networks/create", {"Name": "n", "Driver": "overlay"}))["Id"]

    def task(id: str, service: str) -> Task:
        return Task(
            id=id, service_id=service, desired_state=TaskState.RUNNING,
            networks=(NetworkAttachment(network_id=network),),
        )  # fmt: skip

    await api.manager.store.update(lambda tx: tx.create(task("t1", "gone")))
    assert (await api("DELETE", "/networks/n"))[0] == 204
    await api.ok("POST", "/networks/create", {"Name": "n", "Driver": "overlay"})
    found = api.manager.store.view().by_name(Network, "n")
    assert found is not None
    assert user_of(api.manager.store.view(), found) is None


async def test_ended_tasks_of_a_service_that_is_gone_are_not_listed(api: Api) -> None:
    """docker's command would count them, and wait for ever when they vanish."""
    id = await api.service()
    ended, running = TaskStatus(state=TaskState.SHUTDOWN), TaskStatus(state=TaskState.RUNNING)
    await api.put(
        Task(id="t1", service_id=id, status=ended),
        Task(id="t2", service_id=id, status=running),
        Task(id="t3", status=ended),
    )

    async def listed() -> set[str]:
        return {task["ID"] for task in await api.ok("GET", "/tasks")}

    assert {"t1", "t2", "t3"} <= await listed()
    await api.ok("DELETE", f"/services/{id}")
    assert await listed() & {"t1", "t2", "t3"} == {"t2", "t3"}
