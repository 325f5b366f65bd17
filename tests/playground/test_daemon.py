"""The daemon's own switches, playgrounds side by side, and what is left afterwards."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from shoal.playground.boxes import default_daemon
from tests.support.cluster import Cluster, eventually, playground
from tests.support.leftovers import Leftovers

pytestmark = pytest.mark.playground


def shoald(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Start another shoald that is expected to refuse, in a network namespace of its own."""
    command = ["unshare", "--net", "--mount", *default_daemon(), f"--data-root={tmp_path}/data"]
    command += [f"--exec-root={tmp_path}/run", f"--pidfile={tmp_path}/pid", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_an_api_without_tls_is_for_loopback_only(tmp_path: Path) -> None:
    done = shoald(tmp_path, "--host=tcp://0.0.0.0:2375")
    assert done.returncode != 0
    assert "tls" in done.stderr.lower()
    assert "0.0.0.0:2375" in done.stderr


def test_an_api_on_loopback_is_served() -> None:
    with playground(hosts=1, managers=0, daemon_args=("--host=tcp://127.0.0.1:2375",)) as cluster:
        done = cluster.playground.run("host1", ["curl", "-fsS", "http://127.0.0.1:2375/info"])
        assert json.loads(done.stdout)["Name"] == "host1"
        outside = cluster.from_client(
            "curl", "-sS", "-m", "2", f"http://{cluster.address('host1')}:2375/info"
        )
        assert outside.returncode != 0


@pytest.mark.alone
def test_two_playgrounds_side_by_side_and_nothing_left(archive: Path) -> None:
    before = Leftovers.find()
    with playground(hosts=2, managers=1) as one, playground(hosts=2, managers=1) as two:
        for cluster, word in ((one, "one"), (two, "two")):
            cluster.load(archive)
            cluster.docker("network", "create", "--driver", "overlay", "shop")
            cluster.create(
                "web", "--replicas", "2", "--publish", "8080:80", "--network", "shop",
                "--mount", "type=volume,source=data,target=/data",
                "--", "sh", "-c", f"echo {word} > /index.html; httpd -f -p 80 -h /",
            )  # fmt: skip
        for cluster, word in ((one, "one"), (two, "two")):
            cluster.running("web", 2)
            for host in cluster.hosts:
                assert eventually("it answers", lambda c=cluster, h=host: fetched(c, h)) == word
        one.playground.kill("host2")
        assert fetched(two, "host2") == "two"
        two.playground.partition("host1")
    deadline = time.monotonic() + 10
    while (left := Leftovers.find().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def fetched(cluster: Cluster, host: str) -> str:
    """What the published port answers, or nothing."""
    try:
        return cluster.fetch(host, 8080)
    except AssertionError:
        return ""
