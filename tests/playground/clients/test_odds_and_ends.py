"""Flags of the docker command that need a story of their own."""

import base64
import json
from pathlib import Path

import pytest

from tests.playground.clients.coverage import covers
from tests.support.cluster import Cluster, eventually
from tests.support.images import build_image
from tests.support.registries import LOCKED, OPEN, PASSWORD, USER, push

pytestmark = pytest.mark.playground

SLEEP = ("sh", "-c", "trap 'exit 0' TERM; echo begun; sleep infinity & wait")


@covers("service logs", "--no-resolve", "--no-task-ids", "--no-trunc", "--since", "--tail")
def test_how_logs_say_where_lines_come_from(cluster: Cluster) -> None:
    (task,) = cluster.run("web", "--", "sh", "-c", "echo early; sleep 3; echo late; sleep infinity")
    node, id = cluster.host_of(task), task["ID"]
    eventually("it has written", lambda: "late" in cluster.logs("web"))
    words = ("service", "logs", "--tail", "1")
    assert cluster.docker(*words, "web").startswith(f"web.1.{id[:12]}@{node} ")
    assert cluster.docker(*words, "--no-trunc", "web").startswith(f"web.1.{id}@{node} ")
    assert cluster.docker(*words, "--no-task-ids", "web").startswith(f"web.1@{node} ")
    ids = f"{task['ServiceID']}.1.{id[:12]}@{task['NodeID']} "
    assert cluster.docker(*words, "--no-resolve", "web").startswith(ids)
    stamps = cluster.docker("service", "logs", "--raw", "--timestamps", "web").splitlines()
    late = next(line.split()[0] for line in stamps if line.endswith("late"))
    assert cluster.docker("service", "logs", "--raw", "--since", late, "web") == "late"


@covers("service update", "--detach", "--quiet", "--rollback", "--no-healthcheck")
@covers("service scale", "--detach")
@covers("service rm")
def test_updates_that_are_waited_for_or_not(cluster: Cluster) -> None:
    health = ("--health-cmd", "true", "--health-interval", "1s")
    soon = ("--stop-grace-period", "200ms", "--update-monitor", "200ms")
    cluster.create("web", *soon, *health, "--", *SLEEP)
    (task,) = cluster.running("web", 1)
    assert cluster.container(task)["State"]["Health"]["Status"] == "healthy"
    assert cluster.docker("service", "update", "--quiet", "--no-healthcheck", "web") == "web"
    (task,) = cluster.running("web", 1)  # it was waited for
    assert "Health" not in cluster.container(task)["State"]
    assert cluster.docker("service", "update", "--detach", "--rollback", "web") == "web"
    eventually(
        "it is rolled back",
        lambda: cluster.inspect("service", "web")["UpdateStatus"]["State"] == "rollback_completed",
    )
    (task,) = cluster.running("web", 1)
    assert "Health" in cluster.container(task)["State"]
    assert "web scaled to 2" in cluster.docker("service", "scale", "--detach", "web=2")
    cluster.running("web", 2)
    assert cluster.docker("service", "rm", "web") == "web"
    assert cluster.docker("service", "ls", "--quiet") == ""


@covers("service create", "--generic-resource")
@covers("service update", "--generic-resource-add", "--generic-resource-rm")
def test_generic_resources(cluster: Cluster) -> None:
    cluster.create(
        "train", "--constraint", "node.hostname==host2", "--generic-resource", "ssd=1", "--", *SLEEP
    )

    def given() -> list[str]:
        (task,) = cluster.running("train", 1)
        return cluster.enter(task, "tr '\\0' '\\n' </proc/1/environ | grep DOCKER_ | sort").split()

    assert given() == ["DOCKER_RESOURCE_SSD=1"]
    cluster.update("train", "--generic-resource-rm", "ssd", "--generic-resource-add", "gpu=2")
    assert eventually("it has others", lambda: (now := given()) != ["DOCKER_RESOURCE_SSD=1"] and now) == [
        "DOCKER_RESOURCE_GPU=one,two"
    ]


@covers("secret create", "--label", "--template-driver")
@covers("config create", "--label", "--template-driver")
@covers("secret rm")
@covers("config rm")
def test_templates_in_secrets_and_configs(cluster: Cluster) -> None:
    for kind in ("secret", "config"):
        words = ("--label", "of=tests", "--template-driver", "golang", "where", "-")
        cluster.docker(kind, "create", *words, stdin="{{.Service.Name}} on {{.Node.Hostname}}")
        assert cluster.inspect(kind, "where")["Spec"]["Labels"] == {"of": "tests"}
    (task,) = cluster.run("web", "--secret", "where", "--config", "source=where,target=/where")
    said = f"web on {cluster.host_of(task)}"
    assert cluster.enter(task, "cat /run/secrets/where; echo; cat /where").splitlines() == [said, said]
    cluster.docker("service", "rm", "web")
    for kind in ("secret", "config"):
        assert cluster.docker(kind, "rm", "where") == "where"
        assert cluster.docker(kind, "ls", "--quiet") == ""


@covers("volume ls", "--cluster")
def test_there_are_no_volumes_of_the_cluster(cluster: Cluster) -> None:
    """The flag shows those alone, which the drivers of CSI make."""
    cluster.docker("volume", "create", "own")
    assert cluster.docker("volume", "ls", "--cluster", "--quiet") == ""
    assert "own" in cluster.docker("volume", "ls", "--quiet").split()
    cluster.docker("volume", "rm", "own")


@pytest.mark.usefixtures("web_image")
@covers("stack deploy", "--compose-file", "--detach", "--with-registry-auth")
def test_a_stack_s_images_may_be_locked_up(cluster: Cluster, tmp_path: Path) -> None:
    push(cluster.playground, build_image(tmp_path, f"{OPEN}/stacked/tool:1"), f"{OPEN}/stacked/tool:1")
    image = f"{LOCKED}/stacked/tool:1"
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {LOCKED: {"auth": secret}}}))
    service = {
        "image": image,
        "command": "sleep infinity",
        "stop_grace_period": "200ms",
        "deploy": {"mode": "global"},
    }
    file = tmp_path / "stack.yml"
    file.write_text(json.dumps({"version": "3.8", "services": {"tool": service}}))
    cluster.docker(
        *("--config", str(tmp_path), "stack", "deploy", "--detach", "--compose-file", str(file)),
        *("--with-registry-auth", "locked"),
    )
    cluster.running("locked_tool", 3)  # on all hosts, none of which has the credentials
    cluster.docker("stack", "rm", "locked")
