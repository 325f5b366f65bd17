"""A rolling upgrade: managers of this version and of one that knows more, over one state."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarantees.hosts import manager_pid
from tests.support.cluster import Cluster, eventually, playground

pytestmark = pytest.mark.playground
ROOT = Path(__file__).parents[2]
FIELD = "GpuProfile"
_PACKAGES = ("cluster", "netplane", "worker", "manager", "shoal")
_DAEMON = """#!/bin/sh
# The next version, on hosts that have been upgraded.
if [ -e {markers}/$(hostname) ]; then export PYTHONPATH={newer}; fi
exec {python} -c 'import sys; sys.argv[0] = "shoald"; sys.path[:1] = []
from shoal.daemon.main import main; sys.exit(main())' "$@"
"""


class Upgrade:
    """A cluster of which some hosts run the next version."""

    def __init__(self, cluster: Cluster, markers: Path) -> None:
        self.cluster, self.markers = cluster, markers

    def upgrade(self, *hosts: str) -> None:
        for host in hosts:
            (self.markers / host).touch()
            self.cluster.playground.restart_daemon(host)
        self.cluster.wait_ready(3)

    def leader(self) -> str:
        """The leading host, as soon as there is one."""

        def leading() -> str:
            nodes = self.cluster.nodes(self.cluster.hosts[-1])
            return next((name for name, node in nodes.items() if node["ManagerStatus"].get("Leader")), "")

        return eventually("there is a leader", leading)

    def lead(self, wanted: set[str]) -> None:
        """Kill leaders until one of these leads. (One that is told to end always hands over to the same.)"""
        for _ in range(20):
            if (leader := self.leader()) in wanted:
                return
            pid = str(manager_pid(self.cluster, leader))
            assert self.cluster.playground.run(leader, ["kill", "-KILL", pid], 10).returncode == 0
            self.cluster.wait_ready(3)
        raise AssertionError(f"none of {wanted} came to lead")

    def profile(self, host: str) -> object:
        """The field that only the next version has, as a host shows it."""
        status, service = self.cluster.curl(host, "GET", "/v1.50/services/web")
        assert status == 200
        return service["Spec"]["TaskTemplate"]["ContainerSpec"].get(FIELD)

    def task_profiles(self, host: str) -> set[object]:
        status, tasks = self.cluster.curl(host, "GET", "/v1.50/tasks")
        assert status == 200
        return {task["Spec"]["ContainerSpec"].get(FIELD) for task in tasks}


@pytest.fixture
def mixed(tmp_path: Path, archive: Path) -> Iterator[Upgrade]:
    newer, markers = tmp_path / "newer", tmp_path / "markers"
    markers.mkdir()
    for package in _PACKAGES:
        shutil.copytree(ROOT / package, newer / package, ignore=shutil.ignore_patterns("__pycache__"))
    spec = newer / "cluster" / "spec" / "container.py"
    text = spec.read_text()
    begin = text.index("class ContainerSpec(")
    before = text.index("    image: str", begin)
    spec.write_text(text[:before] + '    gpu_profile: str = ""\n' + text[before:])
    daemon = tmp_path / "shoald"
    daemon.write_text(_DAEMON.format(markers=markers, newer=newer, python=sys.executable))
    daemon.chmod(0o755)
    for path in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(path, 0o755)  # the manager is not root
    with playground(daemon=(str(daemon),)) as cluster:
        cluster.load(archive)
        yield Upgrade(cluster, markers)


def test_a_newer_version_s_field_goes_through_older_managers(mixed: Upgrade) -> None:
    cluster = mixed.cluster
    mixed.upgrade("host3")
    mixed.lead({"host3"})
    spec = {
        "Name": "web",
        "Mode": {"Replicated": {"Replicas": 2}},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox", "Command": ["sleep", "1000"], FIELD: "large"},
            "ForceUpdate": 0,
        },
    }
    status, answer = cluster.curl("host3", "POST", "/v1.50/services/create", spec)
    assert status == 201, answer
    cluster.running("web", 2)
    assert mixed.profile("host3") == "large"
    assert mixed.profile("host1") is None  # it does not know it, and has it all the same:

    mixed.lead({"host1", "host2"})
    cluster.docker("service", "scale", "--detach", "web=4")
    cluster.running("web", 4)
    for host in ("host1", "host2"):  # older managers, from their own disks
        cluster.playground.restart_daemon(host)
        cluster.wait_ready(3)
    assert mixed.profile("host3") == "large"
    eventually("all tasks have it", lambda: mixed.task_profiles("host3") == {"large"})

    mixed.upgrade("host1", "host2")
    for host in cluster.hosts:
        assert mixed.profile(host) == "large"
        assert mixed.task_profiles(host) == {"large"}
