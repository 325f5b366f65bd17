"""Every list filter, in both encodings; look-ups by id, name and prefix; dockerd's words when they fail."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from cluster.objects import (
    Config,
    EngineDescription,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    Secret,
    Service,
    StoreObject,
    Task,
    TaskStatus,
)
from cluster.spec import (
    ConfigSpec,
    ContainerSpec,
    GlobalJobMode,
    GlobalMode,
    NetworkSpec,
    NodeSpec,
    ReplicatedJobMode,
    ReplicatedMode,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from cluster.states import NodeState, Role, TaskState
from tests.unit.api.manager import Api, start

MODES = {
    "web": ServiceMode(replicated=ReplicatedMode(replicas=2)),
    "agent": ServiceMode(global_=GlobalMode()),
    "report": ServiceMode(replicated_job=ReplicatedJobMode(max_concurrent=1, total_completions=1)),
    "clean": ServiceMode(global_job=GlobalJobMode()),
}
TEMPLATE = TaskSpec(container_spec=ContainerSpec(image="nginx"))


def objects() -> list[StoreObject]:
    services = [
        Service(
            id=f"svc-{name}",
            spec=ServiceSpec(
                name=name, labels={"tier": name[0], "empty": ""}, task_template=TEMPLATE, mode=mode
            ),
        )
        for name, mode in MODES.items()
    ]
    nodes = [
        Node(
            id=f"node-{letter}",
            role=role,
            spec=NodeSpec(labels={"zone": letter}, role=role),
            description=NodeDescription(
                hostname=f"host-{letter}", engine=EngineDescription(labels={"disk": "ssd"})
            ),
            status=NodeStatus(state=NodeState.READY),
        )
        for letter, role in (("a", Role.WORKER), ("b", Role.WORKER))
    ]
    common = {
        "service_id": "svc-web",
        "service_name": "web",
        "service_labels": {"tier": "w"},
        "spec": TEMPLATE,
    }
    running = TaskStatus(state=TaskState.RUNNING)
    failed = TaskStatus(state=TaskState.FAILED)
    tasks = [
        Task(
            id="task-1", slot=1, node_id="node-a", desired_state=TaskState.RUNNING, status=running, **common
        ),
        Task(
            id="task-2", slot=2, node_id="node-b", desired_state=TaskState.SHUTDOWN, status=failed, **common
        ),
        Task(id="task-3", slot=3, node_id="node-b", desired_state=TaskState.REMOVE, status=running, **common),
        Task(id="old-1", slot=1, node_id="node-a", desired_state=TaskState.SHUTDOWN, service_id="svc-gone"),
    ]
    payloads: list[StoreObject] = [
        Secret(id=f"sec-{n}", spec=SecretSpec(name=n, labels={"app": n[0]})) for n in NAMES
    ]
    payloads += [Config(id=f"conf-{n}", spec=ConfigSpec(name=n, labels={"app": n[0]})) for n in NAMES]
    networks = [
        Network(
            id="net-1", spec=NetworkSpec(name="front", labels={"tier": "f", "empty": ""}), driver="overlay"
        ),
        Network(id="net-2", spec=NetworkSpec(name="front-2", labels={"tier": "g"}), driver="overlay"),
    ]
    return [*services, *nodes, *tasks, *payloads, *networks]


NAMES = ("key", "key.v2", "pass")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled() -> AsyncIterator[Api]:
    api = await start()
    await api.put(*objects())
    yield api
    await api.client.close()


LISTS: list[tuple[str, dict[str, list[str]], set[str]]] = [
    ("services", {"id": ["svc-w"]}, {"svc-web"}),
    ("services", {"name": ["we"]}, {"svc-web"}),
    ("services", {"name": ["we", "age"]}, {"svc-web", "svc-agent"}),
    ("services", {"name": ["eb"]}, set()),
    ("services", {"label": ["tier=w"]}, {"svc-web"}),
    ("services", {"label": ["tier"], "name": ["clean"]}, {"svc-clean"}),
    ("services", {"label": ["tier=w", "missing"]}, set()),
    ("services", {"label": ["tier="], "name": ["web"]}, {"svc-web"}),
    ("services", {"mode": ["replicated"]}, {"svc-web"}),
    ("services", {"mode": ["global"]}, {"svc-agent"}),
    ("services", {"mode": ["replicated-job", "global-job"]}, {"svc-report", "svc-clean"}),
    ("services", {"mode": ["fast"]}, set()),
    ("services", {"runtime": ["container"], "name": ["web"]}, {"svc-web"}),
    ("services", {"runtime": ["plugin"]}, set()),
    ("nodes", {"id": ["node-a"]}, {"node-a"}),
    ("nodes", {"name": ["host-"]}, {"node-a", "node-b"}),
    ("nodes", {"label": ["disk=ssd"]}, {"node-a", "node-b"}),
    ("nodes", {"label": ["zone=a"]}, set()),
    ("nodes", {"node.label": ["zone=a"]}, {"node-a"}),
    ("nodes", {"role": ["worker"]}, {"node-a", "node-b"}),
    ("nodes", {"role": ["Manager"]}, {"founder"}),
    ("nodes", {"membership": ["accepted"], "role": ["manager"]}, {"founder"}),
    ("nodes", {"membership": ["pending"]}, set()),
    ("tasks", {"id": ["task-1"]}, {"task-1"}),
    ("tasks", {"name": ["web.2"]}, {"task-2"}),
    ("tasks", {"name": ["web"]}, {"task-1", "task-2", "task-3"}),
    ("tasks", {"label": ["tier=w"]}, {"task-1", "task-2", "task-3"}),
    ("tasks", {"service": ["web"]}, {"task-1", "task-2", "task-3"}),
    ("tasks", {"service": ["svc-w"]}, {"task-1", "task-2", "task-3"}),
    ("tasks", {"service": ["svc-gone"]}, {"old-1"}),
    ("tasks", {"service": ["nothing"]}, set()),
    ("tasks", {"node": ["host-a"]}, {"task-1", "old-1"}),
    ("tasks", {"node": ["node-b"], "service": ["web"]}, {"task-2", "task-3"}),
    ("tasks", {"node": ["nowhere"]}, set()),
    ("tasks", {"desired-state": ["running"]}, {"task-1"}),
    ("tasks", {"desired-state": ["Shutdown", "remove"]}, {"task-2", "task-3", "old-1"}),
    ("tasks", {"desired-state": ["preparing"]}, set()),
    ("tasks", {"_up-to-date": ["true"]}, {"task-1", "task-2", "task-3"}),
    ("tasks", {"runtime": ["container"], "id": ["task-1"]}, {"task-1"}),
    ("tasks", {"runtime": ["plugin"]}, set()),
    *[
        (f"{kind}s", filters, {f"{short}-{name}" for name in names})
        for kind, short in (("secret", "sec"), ("config", "conf"))
        for filters, names in (
            ({"id": [f"{short}-k"]}, ("key", "key.v2")),
            ({"name": ["key"]}, ("key", "key.v2")),
            ({"names": ["key"]}, ("key",)),
            ({"names": ["key", "pass"]}, ("key", "pass")),
            ({"label": ["app=p"]}, ("pass",)),
            ({"label": ["app"], "name": ["p"]}, ("pass",)),
        )
    ],
    ("networks", {"id": ["net-1"]}, {"net-1"}),
    ("networks", {"name": ["front"]}, {"net-1", "net-2"}),
    ("networks", {"name": ["^front$"]}, {"net-1"}),
    ("networks", {"name": ["ron.-[0-9]"]}, {"net-2"}),
    ("networks", {"label": ["tier=f"]}, {"net-1"}),
    ("networks", {"label": ["tier="]}, set()),
    ("networks", {"label": ["empty="]}, {"net-1"}),
    ("networks", {"driver": ["overlay"]}, {"net-1", "net-2"}),
    ("networks", {"driver": ["bridge"]}, set()),
    ("networks", {"scope": ["swarm"]}, {"net-1", "net-2"}),
    ("networks", {"scope": ["local"]}, set()),
    ("networks", {"type": ["custom"]}, {"net-1", "net-2"}),
    ("networks", {"type": ["builtin"]}, set()),
    ("networks", {"dangling": ["true"]}, {"net-1", "net-2"}),
    ("networks", {"dangling": ["0"]}, set()),
]


@pytest.mark.parametrize(("path", "filters", "found"), LISTS)
async def test_filters(filled: Api, path: str, filters: dict[str, list[str]], found: set[str]) -> None:
    go = {key: dict.fromkeys(values, True) for key, values in filters.items()}
    for encoded in (filters, go):
        listed = await filled.ok("GET", f"/{path}?filters={quote(json.dumps(encoded))}")
        assert {each.get("ID") or each["Id"] for each in listed} == found


@pytest.mark.parametrize("path", ["services", "nodes", "tasks", "secrets", "configs", "networks"])
@pytest.mark.parametrize("filters", ["", "{}", "null", '{"id":{}}', '{"id":null}', '{"id":[]}'])
async def test_filters_that_say_nothing(filled: Api, path: str, filters: str) -> None:
    assert await filled.ok("GET", f"/{path}?filters={filters}") == await filled.ok("GET", f"/{path}")


@pytest.mark.parametrize("path", ["services", "nodes", "tasks", "secrets", "configs", "networks"])
@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ('{"colour":["red"]}', "invalid filter 'colour'"),
        ("{", "invalid filter"),
        ("[]", "invalid filter"),
        ('{"id":3}', "invalid filter"),
        ('{"id":["a",3]}', "invalid filter"),
        ("%ff", "invalid filter"),
        ("[" * 2000, "invalid filter"),
    ],
)
async def test_filters_that_make_no_sense(filled: Api, path: str, filters: str, words: str) -> None:
    status, problem = await filled("GET", f"/{path}?filters={filters}")
    assert (status, words in problem["message"]) == (400, True), problem


@pytest.mark.parametrize(
    ("path", "filters", "words"),
    [
        ("nodes", {"role": ["king"]}, "Invalid role filter: 'king'"),
        ("nodes", {"membership": ["maybe"]}, "Invalid membership filter: 'maybe'"),
        ("tasks", {"desired-state": ["tired"]}, "Invalid desired-state filter: 'tired'"),
        ("tasks", {"service": ["svc-"]}, "service svc- is ambiguous (4 matches found)"),
        ("tasks", {"node": ["node-"]}, "node node- is ambiguous (2 matches found)"),
        ("tasks", {"_up-to-date": ["often"]}, "invalid filter '_up-to-date=often'"),
        ("networks", {"dangling": ["often"]}, "invalid filter 'dangling=often'"),
        ("networks", {"type": ["odd"]}, "Invalid type filter: 'odd'"),
        ("networks", {"name": ["("]}, "invalid pattern"),
    ],
)
async def test_words_that_a_filter_does_not_know(
    filled: Api, path: str, filters: dict[str, Any], words: str
) -> None:
    status, problem = await filled("GET", f"/{path}?filters={quote(json.dumps(filters))}")
    assert (status, words in problem["message"]) == (400, True), problem


@pytest.mark.timeout(20)  # the pattern keeps a matcher that backtracks busy for years
async def test_a_hostile_pattern_holds_nobody_up(filled: Api) -> None:
    name = "a" * 60
    network = Network(id="net-a", spec=NetworkSpec(name=name), driver="overlay")
    await filled.put(network)
    assert await filled.ok("GET", f"/networks?filters={quote(json.dumps({'name': ['(a+)+b$']}))}") == []
    await filled.manager.store.update(lambda tx: tx.delete(Network, "net-a"))


# --- look-ups ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "id"),
    [
        ("services/svc-web", "svc-web"),
        ("services/web", "svc-web"),
        ("services/svc-w", "svc-web"),
        ("nodes/node-a", "node-a"),
        ("nodes/host-b", "node-b"),
        ("nodes/fou", "founder"),
        ("tasks/task-1", "task-1"),
        ("tasks/old", "old-1"),
        ("tasks/web.2.task-2", "task-2"),
        ("secrets/key", "sec-key"),
        ("secrets/sec-p", "sec-pass"),
        ("configs/key", "conf-key"),
        ("configs/conf-p", "conf-pass"),
        ("networks/front", "net-1"),
        ("networks/net-2", "net-2"),
    ],
)
async def test_look_ups(filled: Api, path: str, id: str) -> None:
    found = await filled.ok("GET", f"/{path}")
    assert (found.get("ID") or found["Id"]) == id


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("services/nothing", 404, "service nothing not found"),
        ("services/svc-", 400, "service svc- is ambiguous (4 matches found)"),
        ("nodes/nothing", 404, "node nothing not found"),
        ("nodes/node-", 400, "node node- is ambiguous (2 matches found)"),
        ("tasks/nothing", 404, "task nothing not found"),
        ("tasks/task-", 400, "task task- is ambiguous (3 matches found)"),
        ("secrets/nothing", 404, "secret nothing not found"),
        ("secrets/sec-k", 400, "secret sec-k is ambiguous (2 matches found)"),
        ("configs/nothing", 404, "config nothing not found"),
        ("configs/conf-k", 400, "config conf-k is ambiguous (2 matches found)"),
        ("networks/nothing", 404, "network nothing not found"),
        ("networks/net-", 400, "network net- is ambiguous (2 matches found)"),
    ],
)
async def test_look_ups_that_find_nothing_or_too_much(
    filled: Api, path: str, status: int, words: str
) -> None:
    got, problem = await filled("GET", f"/{path}")
    assert (got, problem["message"]) == (status, words)


async def test_an_id_goes_before_a_name_and_a_name_before_a_prefix() -> None:
    api = await start()
    names = {"abc": "other", "x1": "abc", "x2": "ab", "abd": "more"}
    await api.put(*(Service(id=id, spec=ServiceSpec(name=name)) for id, name in names.items()))
    assert (await api.ok("GET", "/services/abc"))["ID"] == "abc"
    assert (await api.ok("GET", "/services/ab"))["ID"] == "x2"
    assert (await api.ok("GET", "/services/abd"))["ID"] == "abd"
    assert (await api("GET", "/services/a"))[0] == 400
    await api.client.close()


# --- the other parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "shown"),
    [("", False), ("?status=true", True), ("?status=1", True), ("?status=false", False), ("?status=", False)],
)
async def test_status_comes_on_request(filled: Api, query: str, shown: bool) -> None:
    for service in await filled.ok("GET", f"/services{query}"):
        assert ("ServiceStatus" in service) is shown


async def test_status_counts(filled: Api) -> None:
    (web,) = await filled.ok("GET", '/services?status=true&filters={"name":["web"]}')
    assert web["ServiceStatus"] == {"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 0}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/services?status=maybe", "invalid value for status: maybe"),
        ("/services/web?insertDefaults=often", "invalid value for insertDefaults: often"),
        ("/swarm/update?version={}&rotateWorkerToken=now", "invalid value for rotateWorkerToken: now"),
        ("/swarm/update?version={}&rotateManagerToken=2", "invalid value for rotateManagerToken: 2"),
        ("/swarm/update?version={}&rotateManagerUnlockKey=yes", "invalid value for rotateManagerUnlockKey"),
    ],
)
async def test_flags_that_are_none(filled: Api, path: str, words: str) -> None:
    index = (await filled.ok("GET", "/swarm"))["Version"]["Index"]
    method = "POST" if "update" in path else "GET"
    status, problem = await filled(method, path.format(index), {} if method == "POST" else None)
    assert (status, words in problem["message"]) == (400, True)


@pytest.mark.parametrize("version", ["", "x", "-1", "1.5", "9" * 30, "0x10"])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("services/web", "service"),
        ("nodes/node-a", "node"),
        ("secrets/key", "secret"),
        ("configs/key", "config"),
        ("swarm", "swarm"),
    ],
)
async def test_versions_that_are_none(filled: Api, path: str, kind: str, version: str) -> None:
    status, problem = await filled("POST", f"/{path}/update?version={version}", {})
    assert (status, f"invalid {kind} version" in problem["message"]) == (400, True), problem


@pytest.mark.parametrize("version", ["0", "12345", "18446744073709551615"])
@pytest.mark.parametrize("path", ["services/web", "nodes/node-a", "secrets/key", "configs/key", "swarm"])
async def test_stale_versions_are_out_of_sequence(filled: Api, path: str, version: str) -> None:
    spec = {
        "services/web": {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}},
        "nodes/node-a": {"Role": "worker", "Availability": "active"},
    }.get(path, {})
    before = filled.index
    status, problem = await filled("POST", f"/{path}/update?version={version}", spec)
    assert (status, "update out of sequence" in problem["message"]) == (400, True), problem
    assert filled.index == before
