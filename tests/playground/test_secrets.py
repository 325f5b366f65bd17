"""Secrets and configs reach the tasks that are given them, and no one else."""

import json

import pytest

from tests.support.cluster import Cluster

pytestmark = pytest.mark.playground


def test_secrets_and_configs_are_files_in_the_container(cluster: Cluster) -> None:
    cluster.docker("secret", "create", "key", "-", stdin="s3cr3t")
    cluster.docker("config", "create", "settings", "-", stdin="colour = blue")
    (task,) = cluster.run(
        "web", "--secret", "source=key,target=api,uid=33,mode=0400",
        "--config", "source=settings,target=/etc/app.conf",
    )  # fmt: skip
    assert cluster.enter(task, "cat /run/secrets/api") == "s3cr3t"
    assert cluster.enter(task, "stat -c '%a %u' /run/secrets/api") == "400 33"
    assert cluster.enter(task, "cat /etc/app.conf") == "colour = blue"
    assert "tmpfs" in cluster.enter(task, "grep /run/secrets /proc/mounts")
    assert "in use" in cluster.refused("secret", "rm", "key")
    assert "in use" in cluster.refused("config", "rm", "settings")


def test_a_secret_is_never_told(cluster: Cluster) -> None:
    cluster.docker("secret", "create", "--label", "of=tests", "key", "-", stdin="s3cr3t")
    assert "Data" not in cluster.inspect("secret", "key")["Spec"]
    assert cluster.docker("secret", "ls", "--format", "{{.Name}}", "--filter", "label=of=tests") == "key"
    cluster.docker("config", "create", "settings", "-", stdin="blue")
    assert cluster.docker("config", "inspect", "--pretty", "settings").endswith("blue")
    assert "s3cr3t" not in json.dumps(cluster.curl("host2", "GET", "/secrets"))


def test_refusals(cluster: Cluster) -> None:
    cluster.docker("secret", "create", "key", "-", stdin="x")
    assert "already exists" in cluster.refused(
        "secret", "create", "key", "-", stdin="y"
    ) or "conflicts" in cluster.refused("secret", "create", "key", "-", stdin="y")
    words = ("service", "create", "--detach", "--no-resolve-image", "--secret", "nothing", "busybox")
    assert "secret not found: nothing" in cluster.refused(*words)
    cluster.docker("secret", "rm", "key")
    assert cluster.docker("secret", "ls", "--quiet") == ""
