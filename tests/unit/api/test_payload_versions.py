"""Secrets and configs with new content; services that roll to it; old versions that go."""

import base64

import pytest

from cluster.objects import Secret, Service, Task, TaskStatus
from cluster.spec import ServiceSpec
from cluster.states import TaskState
from manager.versions.keeper import STACK_GRACE, VersionKeeper
from tests.fakes.clock import ManualClock
from tests.unit.api.manager import Api, service_body


def _data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def _secret(api: Api, name: str = "key", text: str = "one") -> str:
    body = {"Name": name, "Data": _data(text), "Labels": {"team": "a"}}
    return str((await api.ok("POST", "/secrets/create", body))["ID"])


async def _service(api: Api, secret: str, name: str = "web") -> str:
    reference = {
        "File": {"Name": "api", "UID": "0", "GID": "0", "Mode": 292},
        "SecretID": secret,
        "SecretName": "key",
    }
    template = {"ContainerSpec": {"Image": "nginx", "Secrets": [reference]}}
    return str((await api.ok("POST", "/services/create", service_body(name, TaskTemplate=template)))["ID"])


def _used(api: Api, service: str) -> str:
    found = api.manager.store.view().get(Service, service)
    assert found is not None
    return _secret_of(found.spec)


def _secret_of(spec: ServiceSpec) -> str:
    container = spec.task_template.container_spec
    assert container is not None
    assert container.secrets
    assert container.secrets[0].file is not None
    assert container.secrets[0].file.name == "api"
    return container.secrets[0].secret_id


async def test_services_roll_to_the_new_version(api: Api) -> None:
    old = await _secret(api)
    service = await _service(api, old)
    before = (await api.ok("GET", f"/services/{service}"))["Version"]["Index"]
    made = await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("two")})
    assert made["Version"] == 2
    assert made["Services"] == ["web"]
    assert _used(api, service) == made["ID"] != old
    stored = api.manager.store.view().get(Service, service)
    assert stored is not None
    assert stored.version > before
    assert stored.previous_spec is not None
    assert _secret_of(stored.previous_spec) == old
    newest = (await api.ok("GET", "/secrets/key"))["Spec"]
    assert newest["Labels"] == {"team": "a", "shoal.version": "2"}
    kept = await api.ok("GET", f"/secrets/{old}")
    assert kept["Spec"]["Name"] == "key.1"
    assert kept["Spec"]["Labels"] == {"team": "a", "shoal.version": "1", "shoal.version.of": "key"}
    payload = api.manager.store.view().get(Secret, old)
    assert payload is not None
    assert payload.spec.data == _data("one")


async def test_the_same_content_changes_nothing(api: Api) -> None:
    id = await _secret(api)
    index = api.manager.store.view().index
    made = await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("one")})
    assert made == {"ID": id, "Version": 1, "Services": []}
    assert api.manager.store.view().get(Secret, id).version <= index  # type: ignore[union-attr]


async def test_an_unused_version_is_not_kept(api: Api) -> None:
    old = await _secret(api)
    await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("two")})
    assert [s["Spec"]["Name"] for s in await api.ok("GET", "/secrets")] == ["key"]
    assert (await api("GET", f"/secrets/{old}"))[0] == 404


async def test_a_service_that_was_rolled_back_takes_the_next_version(api: Api) -> None:
    service = await _service(api, await _secret(api))
    await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("two")})
    now = await api.ok("GET", f"/services/{service}")
    path = f"/services/{service}/update?rollback=previous&version={now['Version']['Index']}"
    await api.ok("POST", path, now["Spec"])
    made = await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("three")})
    assert made["Version"] == 3
    assert _used(api, service) == made["ID"]
    names = {s["Spec"]["Name"] for s in await api.ok("GET", "/secrets")}
    assert names >= {"key", "key.1"}


async def test_old_versions_are_kept_as_long_as_they_are_needed(api: Api) -> None:
    service = await _service(api, await _secret(api))
    keeper = VersionKeeper(api.manager.store, api.manager.clock)

    async def kept() -> set[str]:
        view = api.manager.store.view()
        plans = [keeper.decide(view, subject) for subject in sorted(keeper.subjects(view))]
        await api.manager.store.batch([write for plan in plans for write in plan.writes()])
        return {s.spec.name for s in api.manager.store.view().all(Secret)}

    for text in ("two", "three"):
        await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data(text)})
    assert await kept() == {"key", "key.2"}  # the one to roll back to
    await api.ok("DELETE", f"/services/{service}")
    assert await kept() == {"key"}


async def test_a_stacks_old_version_outlives_its_service_by_a_while(api: Api) -> None:
    """`docker stack rm` removes by the list that it made before it removed the services."""
    labels = {"com.docker.stack.namespace": "shop"}
    body = {"Name": "key", "Data": _data("one"), "Labels": labels}
    old = (await api.ok("POST", "/secrets/create", body))["ID"]
    service = await _service(api, old)
    clock = ManualClock()
    keeper = VersionKeeper(api.manager.store, clock)
    newer = (await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("two")}))["ID"]
    await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("three")})
    view = api.manager.store.view()
    assert len(keeper.decide(view, old).steps) == 1  # the stack goes on with the newest
    assert keeper.decide(view, newer).steps == []
    old = newer
    found = view.get(Service, service)
    assert found is not None
    status = TaskStatus(state=TaskState.RUNNING)
    stopping = Task(id="t", service_id=service, spec=found.spec.task_template, status=status)
    await api.manager.store.batch([lambda tx: tx.create(stopping)])
    await api.ok("DELETE", f"/services/{service}")
    view = api.manager.store.view()
    waiting = keeper.decide(view, old)
    assert (waiting.steps, waiting.wake_at) == ([], clock.now() + STACK_GRACE)
    await clock.advance(STACK_GRACE)
    assert len(keeper.decide(view, old).steps) == 1


async def test_labels_that_clients_write_keep_the_version(api: Api) -> None:
    await _service(api, await _secret(api))
    await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("two")})
    found = await api.ok("GET", "/secrets/key")
    body = {"Name": "key", "Labels": {"new": "1"}}
    await api.ok("POST", f"/secrets/{found['ID']}/update?version={found['Version']['Index']}", body)
    assert (await api.ok("GET", "/secrets/key"))["Spec"]["Labels"] == {"new": "1", "shoal.version": "2"}


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("nothing", 404, "not found"),
        ("key.1", 400, "is an old version: update key"),
        ("taken", 409, "taken.1 exists"),
        ("l" * 63, 400, "choose a shorter name"),
    ],
)
async def test_refusals(api: Api, name: str, status: int, words: str) -> None:
    for secret in ("key", "taken", "l" * 63):
        await _service(api, await _secret(api, secret), f"of-{secret[:5]}")
    await _secret(api, "taken.1")
    await api.ok("POST", "/shoal/secrets/key/versions", {"Data": _data("two")})
    found, problem = await api("POST", f"/shoal/secrets/{name}/versions", {"Data": _data("new")})
    assert found == status
    assert words in problem["message"]


async def test_nobody_makes_an_old_version_by_a_label(api: Api) -> None:
    """A copy of an old version's labels would have the new secret deleted before anybody used it."""
    labels = {"team": "a", "shoal.version": "7", "shoal.version.of": "key"}
    id = (await api.ok("POST", "/secrets/create", {"Name": "copy", "Data": _data("x"), "Labels": labels}))[
        "ID"
    ]
    index = (await api.ok("GET", f"/secrets/{id}"))["Version"]["Index"]
    await api.ok("POST", f"/secrets/{id}/update?version={index}", {"Name": "copy", "Labels": labels})
    made = await api.ok("POST", "/shoal/secrets/copy/versions", {"Data": _data("y"), "Labels": labels})
    assert made["Version"] == 2
    view = api.manager.store.view()
    keeper = VersionKeeper(api.manager.store, api.manager.clock)
    assert keeper.subjects(view) == set()
    found = (await api.ok("GET", "/secrets/copy"))["Spec"]["Labels"]
    assert found == {"team": "a", "shoal.version": "2"}


async def test_docker_s_own_update_still_changes_labels_only(api: Api) -> None:
    id = await _secret(api)
    version = (await api.ok("GET", f"/secrets/{id}"))["Version"]["Index"]
    body = {"Name": "key", "Data": _data("two")}
    status, problem = await api("POST", f"/secrets/{id}/update?version={version}", body)
    assert status == 400
    assert problem["message"].startswith("only updates to Labels are allowed")
    assert "shoal secret update key" in problem["message"]


async def test_configs_have_versions_too(api: Api) -> None:
    await api.ok("POST", "/configs/create", {"Name": "conf", "Data": _data("a")})
    body = {"Data": _data("b"), "Templating": {"Name": "golang"}, "Labels": {}}
    assert (await api.ok("POST", "/shoal/configs/conf/versions", body))["Version"] == 2
    found = (await api.ok("GET", "/configs/conf"))["Spec"]
    assert found["Data"] == _data("b")
    assert found["Templating"]["Name"] == "golang"
