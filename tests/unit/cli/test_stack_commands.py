"""`shoal stack`, `secret`, `config` and `plan` as a user types them, against a fake engine."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from shoal.cli.client import Json
from shoal.stack import deploy, remove
from tests.fakes.engine_api import Call, FakeEngine
from tests.unit.cli.conftest import Run

FILE = """
services:
  web: {image: nginx, secrets: [key], depends_on: [db], deploy: {replicas: 1}}
  db: {image: mysql}
secrets: {key: {content: one}}
"""


class Stacks:
    """An engine with as much of a cluster as a stack needs; tasks of a service run at once."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.services: dict[str, Json] = {}
        self.secrets: dict[str, Json] = {}
        self.created: list[str] = []
        for path in ("/networks", "/configs"):
            engine.on("GET", path, [])
        engine.on("GET", "/services", lambda call: list(self.services.values()))
        engine.on("GET", "/secrets", lambda call: list(self.secrets.values()))
        engine.on("GET", "/tasks", self._tasks)
        engine.on("POST", "/networks/create", lambda call: self._made("network", call))
        engine.on("POST", "/secrets/create", lambda call: self._made("secret", call))
        engine.on("POST", "/services/create", lambda call: self._made("service", call))
        engine.on("POST", "/shoal/secrets/secret-s_key/versions", self._version)
        for image in ("nginx", "mysql"):
            engine.on("GET", f"/distribution/{image}/json", (503, "the registry does not answer"))

    def _made(self, kind: str, call: Call) -> Json:
        name = call.body["Name"]
        self.created.append(f"{kind} {name}")
        made = {"ID": f"{kind}-{name}", "Version": {"Index": 5}, "Spec": call.body}
        if kind == "secret":
            self.secrets[name] = made
        if kind == "service":
            self.services[name] = made
            self.engine.on("GET", f"/services/{made['ID']}", made)
            self.engine.on("POST", f"/services/{made['ID']}/update", {"Warnings": None})
            self.engine.on("DELETE", f"/services/{made['ID']}", lambda call: self.services.pop(name) and {})
        self.engine.on("DELETE", f"/{kind}s/{made['ID']}", {}) if kind != "service" else None
        return {"ID": made["ID"]}

    def _tasks(self, call: Call) -> list[Json]:
        ids = json.loads(call.query.get("filters", "{}")).get("service", [])
        return [
            {
                "ServiceID": id,
                "Slot": 1,
                "CreatedAt": "1",
                "DesiredState": "running",
                "Status": {"State": "running"},
            }
            for id in ids
        ]

    def _version(self, call: Call) -> Json:
        same = call.body["Data"] == self.secrets["s_key"]["Spec"]["Data"]
        id = "secret-s_key" if same else "secret-2"
        return {"ID": id, "Version": 1 if same else 2, "Services": [] if same else ["s_web"]}


@pytest.fixture
def stacks(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stacks:
    monkeypatch.setattr(deploy, "_POLL", 0.0)
    monkeypatch.setattr(remove, "_POLL", 0.0)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "stack.yml").write_text(FILE)
    return Stacks(engine)


def test_deploy_twice_and_remove(stacks: Stacks, run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "stack.yml")
    first = run("stack", "deploy", file, "s")
    assert first.status == 0, first.err
    assert stacks.created == ["network s_default", "secret s_key", "service s_db", "service s_web"]
    web = stacks.services["s_web"]["Spec"]
    reference = web["TaskTemplate"]["ContainerSpec"]["Secrets"][0]
    assert (reference["SecretID"], reference["SecretName"]) == ("secret-s_key", "s_key")
    assert "could not be pinned" in first.err

    second = run("stack", "deploy", "-c", file, "--resolve-image", "never", "s")
    assert second.out.splitlines()[-2:] == ["service s_db: unchanged", "service s_web: unchanged"]
    (tmp_path / "stack.yml").write_text(FILE.replace("one", "two"))
    assert "secret s_key: version 2, for s_web" in run("stack", "deploy", file, "s").out

    (removed,) = [run("stack", "rm", "s").out.splitlines()]
    assert removed[:2] == ["service s_web: removed", "service s_db: removed"]
    assert "secret s_key: removed" in removed


def test_an_image_keeps_its_digest_when_the_registry_does_not_answer(
    stacks: Stacks, run: Run, tmp_path: Path
) -> None:
    file = str(tmp_path / "stack.yml")
    digest = "sha256:" + "a" * 64
    descriptor = {"Descriptor": {"digest": digest}, "Platforms": [{"architecture": "amd64", "os": "linux"}]}
    stacks.engine.on("GET", "/distribution/nginx/json", descriptor)
    run("stack", "deploy", file, "s")
    stacks.engine.on("GET", "/distribution/nginx/json", (503, "gone"))
    run("stack", "deploy", file, "s")
    (call,) = stacks.engine.asked("POST", "/services/service-s_web/update")
    template = call.body["TaskTemplate"]
    assert template["ContainerSpec"]["Image"] == f"nginx@{digest}"
    assert template["Placement"]["Platforms"] == [{"Architecture": "amd64", "OS": "linux"}]


def test_credentials_go_with_each_service(stacks: Stacks, run: Run, tmp_path: Path) -> None:
    auth = base64.b64encode(b"me:secret").decode()
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": auth}}})
    )
    run("stack", "deploy", "--with-registry-auth", str(tmp_path / "stack.yml"), "s")
    for call in stacks.engine.asked("POST", "/services/create"):
        told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(call.headers["X-Registry-Auth"]))
        assert told["password"] == "secret"
    stacks.engine.calls.clear()
    assert run("service", "refresh-auth", "service-s_web").status == 0
    (call,) = stacks.engine.asked("POST", "/services/service-s_web/update")
    assert call.body == stacks.services["s_web"]["Spec"]
    assert call.headers["X-Registry-Auth"]
    (tmp_path / "config.json").unlink()
    assert "log in with `docker login`" in run("service", "refresh-auth", "service-s_web").err


def test_a_dependency_that_never_comes_ends_the_wait(stacks: Stacks, run: Run, tmp_path: Path) -> None:
    stacks.engine.on("GET", "/tasks", [])
    done = run("stack", "deploy", "--timeout", "0", str(tmp_path / "stack.yml"), "s")
    assert done.status == 1
    assert "service web waited 0 s for db (service_started): 0 of 1 task started" in done.err
    assert stacks.created[-1] == "service s_db"


def test_a_stack_that_is_not_there(stacks: Stacks, run: Run) -> None:
    for words in (("rm", "s"), ("ps", "s"), ("services", "s")):
        done = run("stack", *words)
        assert (done.status, done.err) == (1, "shoal: nothing found in stack: s\n")


def test_lists(stacks: Stacks, run: Run, tmp_path: Path) -> None:
    run("stack", "deploy", str(tmp_path / "stack.yml"), "s")
    assert run("stack", "ls").out.splitlines() == ["NAME   SERVICES", "s      2"]
    assert [line.split()[1] for line in run("stack", "services", "s").out.splitlines()[1:]] == [
        "s_db",
        "s_web",
    ]
    assert json.loads(run("stack", "ls", "--format", "json").out) == [{"Name": "s", "Services": 2}]


def test_config_prints_the_merged_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yml").write_text("services: {web: {image: '${IMAGE}', command: a}}")
    (tmp_path / "b.yml").write_text("services: {web: {command: b}}")
    monkeypatch.setenv("IMAGE", "nginx:5")
    files = ("-c", str(tmp_path / "a.yml"), "-c", str(tmp_path / "b.yml"))
    assert run("stack", "config", *files).out == "services:\n  web:\n    command: b\n    image: nginx:5\n"
    assert "${IMAGE}" in run("stack", "config", "--skip-interpolation", *files).out


def test_a_bad_file_is_a_bad_command_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text("services:\n  web:\n    image: [\n")
    done = run("stack", "deploy", str(tmp_path / "bad.yml"), "s")
    assert done.status == 2
    assert done.err.startswith(f"shoal: {tmp_path}/bad.yml:4: this is no YAML")
    assert run("stack", "deploy", str(tmp_path / "none.yml"), "s").status == 2
    assert run("stack", "deploy", "s").status == 2


def test_plans(stacks: Stacks, run: Run, tmp_path: Path) -> None:
    run("stack", "deploy", str(tmp_path / "stack.yml"), "s")
    stacks.engine.calls.clear()
    stacks.engine.on("POST", "/shoal/plan", {"Sentences": ["Nothing would change."]})
    assert run("plan", "stack", str(tmp_path / "stack.yml"), "s").out == "Nothing would change.\n"
    assert (
        run("stack", "deploy", "--dry-run", str(tmp_path / "stack.yml"), "s").out == "Nothing would change.\n"
    )
    assert run("plan", "service", "update", "service-s_db", "--replicas", "4").status == 0
    assert run("plan", "service", "rm", "service-s_db").status == 0
    assert run("plan", "service", "create", "--no-resolve-image", "nginx").status == 0
    plans = [call.body for call in stacks.engine.asked("POST", "/shoal/plan")]
    assert [service["Name"] for service in plans[0]["Services"]] == ["s_db", "s_web"]
    assert plans[0] == plans[1]
    assert plans[2]["Services"][0]["Mode"] == {"Replicated": {"Replicas": 4}}
    assert plans[3] == {"Remove": ["service-s_db"]}
    changing = [call for call in stacks.engine.calls if call.method != "GET" and call.path != "/shoal/plan"]
    assert changing == []


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_secrets_and_configs(engine: FakeEngine, run: Run, tmp_path: Path, kind: str) -> None:
    (tmp_path / "f").write_bytes(b"\x00data")
    data = base64.b64encode(b"\x00data").decode()
    found = {
        "ID": "id1", "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z",
        "Spec": {"Name": "key", "Labels": {"shoal.version": "4", "a": "b"}},
    }  # fmt: skip
    engine.on("POST", f"/{kind}s/create", {"ID": "id1"})
    engine.on("GET", f"/{kind}s", [found])
    engine.on("GET", f"/{kind}s/key", found)
    engine.on("DELETE", f"/{kind}s/key", {})
    engine.on("POST", f"/shoal/{kind}s/key/versions", {"ID": "id2", "Version": 5, "Services": ["web"]})
    made = run(kind, "create", "-l", "x=y", "--template-driver", "golang", "key", str(tmp_path / "f"))
    assert made.out == "id1\n"
    (call,) = engine.asked("POST", f"/{kind}s/create")
    assert call.body == {"Name": "key", "Labels": {"x": "y"}, "Data": data, "Templating": {"Name": "golang"}}
    assert run(kind, "ls").out.splitlines()[1].split()[:3] == ["id1", "key", "4"]
    assert run(kind, "ls", "-q", "-f", "label=a=b").out == "id1\n"
    assert json.loads(engine.asked("GET", f"/{kind}s")[-1].query["filters"]) == {"label": ["a=b"]}
    assert run(kind, "ls", "-f", "what=x").status == 2
    assert json.loads(run(kind, "inspect", "key").out)[0]["ID"] == "id1"
    assert " - a=b" in run(kind, "inspect", "--pretty", "key").out
    updated = run(kind, "update", "-d", "key", str(tmp_path / "f"))
    assert (updated.out, updated.err) == ("id2\n", "key has version 5; rolled to it: web\n")
    assert run(kind, "rm", "key").out == "key\n"
    assert run(kind, "create", "key", str(tmp_path / "nothing")).status == 2
