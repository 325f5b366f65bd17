"""Ansible's community.docker modules: a playbook makes a swarm and fills it; a second run changes nothing."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, playground

pytestmark = pytest.mark.playground

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
COLLECTIONS = BIN.parent / "tools"


@pytest.fixture(scope="module")
def engine(docker_command: None, archive: Path) -> Iterator[Cluster]:
    """One engine, in no swarm."""
    if not (COLLECTIONS / "ansible_collections/community/docker").exists():
        pytest.skip("there is no community.docker collection: setup/tests unpacks it")
    with playground(hosts=1, managers=0) as cluster:
        cluster.load(archive)
        yield cluster


def play(cluster: Cluster, folder: Path) -> dict[str, bool]:
    """Run the playbook; which of its tasks changed something."""
    host = cluster.playground.host("host1")
    environment = os.environ | {
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder),
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_NOCOLOR": "true",
        "DOCKER_HOST": host.docker_host,
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }
    (folder / "ansible.cfg").touch()
    command = [str(BIN / "ansible-playbook"), "-i", "localhost,", str(HERE / "swarm.yml")]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    command += ["-e", f"docker_host={host.docker_host}", "-e", f"address={host.address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    results = re.findall(r"^TASK \[(.*?)\] \*+\n(?:\[.*\n)*(ok|changed): ", done.stdout, re.MULTILINE)
    return {task: result == "changed" for task, result in results}


def test_a_playbook_that_is_run_twice(engine: Cluster, tmp_path: Path) -> None:
    first = play(engine, tmp_path)
    made = {"swarm", "node", "network", "secret", "config", "service", "stack"}
    assert {task for task, changed in first.items() if changed} == made
    tasks = engine.running("web", 2)
    engine.running("shop_job", 1)
    seen = engine.enter(tasks[0], "cat /run/secrets/api /settings; grep Uid /proc/1/status")
    assert seen.split() == ["s3cr3tcalmUid:", "33", "33", "33", "33"]
    second = play(engine, tmp_path)
    assert set(second) == set(first)
    assert [task for task, changed in second.items() if changed] == []
    assert {task["ID"] for task in engine.tasks("web")} == {task["ID"] for task in tasks}
