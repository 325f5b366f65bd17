"""`docker stack`, every subcommand and flag."""

from pathlib import Path

import pytest

from tests.playground.clients.coverage import covers
from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

BASE = """\
version: "3.8"
services:
  web:
    image: busybox
    command: [sh, -c, "cat /run/secrets/key /settings; sleep infinity"]
    stop_grace_period: 200ms
    environment: {COLOUR: "${COLOUR:-blue}"}
    networks: [inner]
    secrets: [key]
    configs: [{source: settings, target: /settings}]
    deploy: {replicas: 2, labels: {of: web}}
  spare:
    image: busybox
    command: [sleep, infinity]
    stop_grace_period: 200ms
networks: {inner: {}}
secrets: {key: {file: ./key}}
configs: {settings: {file: ./settings}}
"""
OVERRIDE = """\
version: "3.8"
services:
  web: {environment: {SIZE: large}}
"""
PRUNED = BASE[: BASE.index("  spare:")] + BASE[BASE.index("networks: {inner") :]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, text in {"base.yml": BASE, "more.yml": OVERRIDE, "pruned.yml": PRUNED}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "key").write_text("s3cr3t\n")
    (tmp_path / "settings").write_text("calm\n")
    return tmp_path


@pytest.fixture
def deployed(cluster: Cluster, files: Path) -> Cluster:
    words = ("--compose-file", str(files / "base.yml"), "--compose-file", str(files / "more.yml"))
    cluster.docker("stack", "deploy", "--detach=true", "--resolve-image", "never", *words, "shop")
    cluster.running("shop_web", 2)
    cluster.running("shop_spare", 1)
    return cluster


@covers("stack deploy", "--compose-file", "--detach", "--resolve-image", "--prune", "--quiet")
def test_deploy(deployed: Cluster, files: Path) -> None:
    """A second time nothing is restarted; with --prune, what the file has no more goes."""
    (spec,) = [s["Spec"] for s in deployed.client().api.services() if s["Spec"]["Name"] == "shop_web"]
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert container["Env"] == ["COLOUR=blue", "SIZE=large"]
    assert container["Image"] == "busybox:latest"
    assert spec["Labels"]["of"] == "web"
    eventually("both have written", lambda: deployed.logs("shop_web").count("calm") == 2)
    assert sorted(deployed.logs("shop_web").split()) == ["calm", "calm", "s3cr3t", "s3cr3t"]
    before = {task["ID"] for task in deployed.tasks("shop_web")}
    base = ("--compose-file", str(files / "base.yml"), "--compose-file", str(files / "more.yml"))
    again = ("stack", "deploy", "--detach", "--resolve-image=never")
    deployed.docker(*again, *base, "shop")
    assert {task["ID"] for task in deployed.tasks("shop_web")} == before
    pruned = ("--compose-file", str(files / "pruned.yml"), "--compose-file", str(files / "more.yml"))
    deployed.docker(
        "stack", "deploy", "--quiet", "--detach=false", "--prune", "--resolve-image=never", *pruned, "shop"
    )
    assert deployed.docker("stack", "services", "--format", "{{.Name}}", "shop") == "shop_web"
    assert {task["ID"] for task in deployed.tasks("shop_web")} == before


@covers("stack ls", "--format")
@covers("stack services", "--filter", "--format", "--quiet")
@covers("stack ps", "--filter", "--format", "--no-resolve", "--no-trunc", "--quiet")
def test_lists(deployed: Cluster) -> None:
    assert deployed.docker("stack", "ls", "--format", "{{.Name}} {{.Services}}") == "shop 2"
    web = deployed.inspect("service", "shop_web")["ID"]
    rows = deployed.docker("stack", "services", "--format", "{{.Name}} {{.Replicas}}", "shop").splitlines()
    assert rows == ["shop_spare 1/1", "shop_web 2/2"]
    assert deployed.docker("stack", "services", "--quiet", "--filter", "name=shop_web", "shop") == web[:12]
    tasks = {task["ID"]: task for task in deployed.tasks("shop_web")}
    words = ("stack", "ps", "--filter", "name=shop_web", "--no-trunc")
    assert set(deployed.docker(*words, "--quiet", "shop").split()) == set(tasks)
    raw = deployed.docker(*words, "--no-resolve", "--format", "{{.ID}} {{.Node}}", "shop").splitlines()
    assert set(raw) == {f"{id} {task['NodeID']}" for id, task in tasks.items()}


@covers("stack rm", "--detach")
def test_remove_and_deploy_at_once(deployed: Cluster, files: Path) -> None:
    words = (
        "stack",
        "deploy",
        "--detach",
        "--resolve-image=never",
        "--compose-file",
        str(files / "base.yml"),
    )
    said = deployed.docker("stack", "rm", "--detach=true", "shop")
    assert "Removing network shop_inner" in said
    deployed.docker(*words, "shop")
    deployed.running("shop_web", 2)
    deployed.docker("stack", "rm", "--detach=false", "shop")
    api = deployed.client().api
    assert api.services() == []
    assert api.secrets() == api.configs() == []
    assert [
        network["Name"] for network in api.networks(filters={"label": "com.docker.stack.namespace"})
    ] == []


@covers("stack config", "--compose-file", "--skip-interpolation")
def test_config(cluster: Cluster, files: Path) -> None:
    words = ("stack", "config", "--compose-file", str(files / "base.yml"))
    assert "COLOUR: blue" in cluster.docker(*words)
    assert "COLOUR: ${COLOUR:-blue}" in cluster.docker(*words, "--skip-interpolation")
    merged = cluster.docker(*words, "--compose-file", str(files / "more.yml"))
    assert "SIZE: large" in merged
