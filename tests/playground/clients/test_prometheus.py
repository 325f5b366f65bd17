"""Prometheus' discovery for Docker Swarm: services, tasks and nodes become targets, and vanish."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.playground.layout import CLIENT
from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

ROLES = ("services", "tasks", "nodes")
META = "__meta_dockerswarm_"

Targets = Callable[[str], list[dict[str, str]]]


@pytest.fixture
def targets(cluster: Cluster, tmp_path: Path) -> Iterator[Targets]:
    """A Prometheus that watches the cluster; what it has discovered of a role."""
    program = shutil.which("prometheus", path=str(Path(sys.executable).parent)) or shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no prometheus: setup/tests unpacks it")
    host = cluster.playground.host("host2").docker_host
    jobs = [
        {
            "job_name": role,
            "dockerswarm_sd_configs": [{"host": host, "role": role, "refresh_interval": "1s"}],
        }
        for role in ROLES
    ]
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "1h"}, "scrape_configs": jobs}))
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    command += ["--web.listen-address=127.0.0.1:9090", "--log.level=warn"]

    def discovered(role: str) -> list[dict[str, str]]:
        url = "http://127.0.0.1:9090/api/v1/targets?state=active"
        answer = cluster.from_client("curl", "-sS", "-m", "3", url).stdout
        found: Any = json.loads(answer)["data"]["activeTargets"] if answer else []
        labels = [target["discoveredLabels"] for target in found]
        return [each for each in labels if each["job"] == role]

    with (
        (tmp_path / "log").open("w") as log,
        cluster.playground.popen(CLIENT, command, stdout=log, stderr=log) as process,
    ):
        try:
            eventually("it knows the nodes", lambda: discovered("nodes"), pause=0.2)
            yield discovered
        finally:
            process.terminate()
            process.wait()
    assert "dockerswarm" not in (tmp_path / "log").read_text()  # it complained of nothing


def test_targets_appear_and_vanish(cluster: Cluster, targets: Targets) -> None:
    assert sorted(node[f"{META}node_hostname"] for node in targets("nodes")) == cluster.hosts
    addresses = {node[f"{META}node_address"] for node in targets("nodes")}
    assert addresses == {cluster.address(host) for host in cluster.hosts}
    cluster.docker("network", "create", "--driver", "overlay", "shop")
    tasks = cluster.run(
        "web", "--network", "shop", "--publish", "8170:80", "--label", "team=blue",
        "--container-label", "of=web", replicas=2,
    )  # fmt: skip

    def known(role: str) -> list[dict[str, str]]:
        return [each for each in targets(role) if each.get(f"{META}service_name") == "web"]

    eventually("both tasks are targets", lambda: ids(known("tasks")) == {t["ID"] for t in tasks}, pause=0.2)
    places = {
        f"{attached['Addresses'][0].partition('/')[0]}:8170"  # its way: a task's address, a service's port
        for task in tasks
        for attached in task["NetworksAttachments"]
    }
    assert {each["__address__"] for each in known("tasks")} <= places
    assert {each[f"{META}task_state"] for each in known("tasks")} == {"running"}
    assert {each[f"{META}node_hostname"] for each in known("tasks")} == set(cluster.spread(tasks))
    services = eventually("the service is a target", lambda: known("services"), pause=0.2)
    assert services[0][f"{META}service_label_team"] == "blue"
    assert services[0][f"{META}service_endpoint_port_publish_mode"] == "ingress"
    assert {each[f"{META}network_name"] for each in services} == {"shop", "ingress"}

    cluster.docker("service", "scale", "--detach", "web=3")
    eventually("a third one", lambda: len(running(known("tasks"))) == 3, pause=0.2)
    cluster.docker("service", "rm", "web")
    eventually("none is left", lambda: not known("services") and not running(known("tasks")), pause=0.2)


def ids(found: list[dict[str, str]]) -> set[str]:
    """The ids of tasks."""
    return {each[f"{META}task_id"] for each in found}


def running(found: list[dict[str, str]]) -> set[str]:
    """The ids of those that should run."""
    return ids([each for each in found if each[f"{META}task_desired_state"] == "running"])
