"""A playground of real daemons: it forms a cluster, survives `down --keep`, and leaves nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.playground import formation
from shoal.playground.boxes import default_daemon
from shoal.playground.layout import Settings
from shoal.playground.playground import Playground
from tests.host.playground import remains

pytestmark = [pytest.mark.host, pytest.mark.playground]


def shoal(place: Playground, *words: str) -> str:
    """Run `shoal` against host1 and return its output."""
    command = [sys.executable, "-m", "shoal.cli.main", "--host", place.host("host1").docker_host, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_up_forms_a_cluster_of_managers_and_workers(folder: Path) -> None:
    before = remains.snapshot()
    said: list[str] = []
    place = Playground(folder, say=said.append)
    settings = Settings(hosts=2, managers=1, daemon=default_daemon())
    place.up(settings)
    nodes = {
        node["Description"]["Hostname"]: node
        for node in json.loads(shoal(place, "node", "ls", "--format", "json"))
    }
    assert {name: node["Spec"]["Role"] for name, node in nodes.items()} == {
        "host1": "manager",
        "host2": "worker",
    }
    assert {node["Status"]["State"] for node in nodes.values()} == {"ready"}
    assert nodes["host2"]["Status"]["Addr"] == "192.0.2.12"
    assert "host2: join as worker" in said

    place.down(keep=True)
    place.up(settings)  # the nodes are still the same cluster
    formation.wait_ready(place.engine("host1"), nodes=2, managers=1)
    again = json.loads(shoal(place, "node", "ls", "--format", "json"))
    assert {node["ID"] for node in again} == {node["ID"] for node in nodes.values()}

    place.down()
    assert remains.of(folder) == []
    assert remains.snapshot() == before


def test_without_managers_the_engines_are_in_no_cluster(folder: Path) -> None:
    place = Playground(folder)
    place.up(Settings(hosts=1, managers=0, daemon=default_daemon()))
    info = json.loads(shoal(place, "info", "--format", "json"))
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert info["Name"] == "host1"
