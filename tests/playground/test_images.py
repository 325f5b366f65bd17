"""Images: pulled from registries, loaded from archives, listed, and pulled by the tasks that need them."""

import base64
import json
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, eventually
from tests.support.images import build_image
from tests.support.registries import LOCKED, OPEN, PASSWORD, USER, push
from worker.images.config import ImageConfig

pytestmark = pytest.mark.playground


@pytest.mark.usefixtures("web_image")
def test_pull_and_list(cluster: Cluster, tmp_path: Path) -> None:
    image = f"{OPEN}/test/tool:1"
    push(
        cluster.playground,
        build_image(tmp_path, image, config=ImageConfig(cmd=("sh",), stop_signal="SIGQUIT")),
        image,
    )
    said = cluster.docker("pull", image, host="host2")
    assert "Pull complete" in said
    assert "Status: Downloaded newer image" in said
    assert "Image is up to date" in cluster.docker("pull", image, host="host2")
    row = cluster.docker("image", "ls", "--format", "{{.Repository}} {{.Tag}}", image, host="host2")
    assert row == f"{OPEN}/test/tool 1"
    inspected = cluster.inspect("image", image, host="host2")
    assert inspected["Config"]["StopSignal"] == "SIGQUIT"
    assert inspected["RepoDigests"][0].startswith(f"{OPEN}/test/tool@sha256:")
    digest = inspected["RepoDigests"][0]
    cluster.docker("pull", digest, host="host3")
    assert cluster.inspect("image", digest, host="host3")["Id"] == inspected["Id"]


def test_pulls_that_can_not_be(cluster: Cluster, web_image: str) -> None:
    assert "not found" in cluster.refused("pull", f"{OPEN}/test/web:none")
    assert "registry:9" in cluster.refused("pull", "registry:9/x:1")
    assert "must be lowercase" in cluster.refused("pull", "UPPER")
    assert cluster.docker("image", "ls", "--quiet", f"{OPEN}/test/web:none") == ""


def test_load(cluster: Cluster, tmp_path: Path) -> None:
    archive = build_image(tmp_path, "mine/tool:7", {"greeting": "hello\n"})
    assert cluster.docker("load", "--input", str(archive), host="host2") == "Loaded image: mine/tool:7"
    assert cluster.docker("image", "ls", "--format", "{{.Tag}}", "mine/tool", host="host2") == "7"
    cluster.create(
        "web", "--constraint", "node.hostname==host2", "--", "sh", "-c", "cat greeting; sleep 99",
        image="mine/tool:7",
    )  # fmt: skip
    assert cluster.eventual_logs("web", "hello") == "hello"
    in_use = cluster.refused("image", "rm", "mine/tool:7", host="host2")
    assert "container" in in_use
    cluster.docker("service", "rm", "web")
    eventually("its container goes", lambda: not cluster.docker("ps", "--all", "--quiet", host="host2"))
    assert "Untagged: mine/tool:7" in cluster.docker("image", "rm", "mine/tool:7", host="host2")
    assert cluster.docker("image", "ls", "--quiet", "mine/tool", host="host2") == ""


def test_load_of_something_else_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"no archive" * 100)
    before = cluster.docker("image", "ls", "--quiet")
    assert cluster.refused("load", "--input", str(tmp_path / "junk"))
    assert cluster.docker("image", "ls", "--quiet") == before


def test_tasks_pull_their_image_by_the_digest_that_the_client_resolved(
    cluster: Cluster, web_image: str
) -> None:
    cluster.docker(
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "3",
        "--stop-grace-period",
        "1s",
        web_image,
    )
    cluster.running("web", 3)
    image = cluster.inspect("service", "web")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    assert image.startswith(f"{web_image}@sha256:")
    for host in cluster.hosts:
        digest = f"{OPEN}/test/web@{image.partition('@')[2]}"
        assert cluster.inspect("image", digest, host=host)["RepoDigests"] == [digest]


def test_a_registry_that_wants_a_password(cluster: Cluster, web_image: str, tmp_path: Path) -> None:
    archive = build_image(tmp_path, f"{OPEN}/private/tool:1")
    push(cluster.playground, archive, f"{OPEN}/private/tool:1")
    private = f"{LOCKED}/private/tool:1"
    status, answer = cluster.curl("host1", "POST", f"/images/create?fromImage={private}")
    assert status == 403
    assert "no basic auth credentials" in answer["message"]
    cluster.create("without", "--restart-condition", "none", image=private)
    assert private in cluster.complaint("without")

    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {LOCKED: {"auth": secret}}}))
    cluster.docker(
        "--config", str(tmp_path), "service", "create", "--detach", "--with-registry-auth",
        "--stop-grace-period", "200ms", "--name", "with", private, "sleep", "infinity",
    )  # fmt: skip
    (task,) = cluster.running("with", 1)
    assert secret not in json.dumps(cluster.inspect("service", "with"))
    # The credentials outlive updates that bring none, so that a node that has never pulled it can take over.
    cluster.update("with", "--env-add", "A=b")
    moved = cluster.replaced("with", task)
    places = {cluster.host_of(task), cluster.host_of(moved)}
    try:
        for host in places:
            cluster.docker("node", "update", "--availability", "drain", host)
        last = cluster.replaced("with", moved)
        while cluster.host_of(last) in places:
            last = cluster.replaced("with", last)
        images = cluster.docker("image", "ls", "--format", "{{.Repository}}", host=cluster.host_of(last))
        assert private.rpartition(":")[0] in images
    finally:
        for host in places:
            cluster.docker("node", "update", "--availability", "active", host)
    assert secret not in json.dumps(cluster.curl("host1", "GET", "/tasks")[1])
    wrong = cluster.refused("login", "--username", USER, "--password-stdin", LOCKED, stdin="wrong")
    assert "unauthorized" in wrong.lower()
    cluster.docker("--config", str(tmp_path), "login", "-u", USER, "--password-stdin", LOCKED, stdin=PASSWORD)
