"""The playbooks, run from outside the cluster over ssh. Playground hosts share one file system and have no
systemd, so the part that installs is left out here, but for what is packed.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.playground.layout import CLIENT
from tests.playground.test_autolock import locked_on_disk
from tests.support import ssh
from tests.support.cluster import Cluster, eventually, playground

pytestmark = pytest.mark.playground

ROOT = Path(__file__).parents[2]
PLAYBOOKS = ROOT / "ansible"
BIN = Path(sys.executable).parent
GROUPS = {"managers": ("host1", "host2"), "workers": ("host3",)}


class Controller:
    """The machine that Ansible runs on: the playground's client."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self._directory = directory
        self._shell = ssh.SecureShell(cluster.playground, directory)

    def __enter__(self) -> "Controller":
        for host in self.cluster.hosts:
            self._shell.start(host)
        (self._directory / "ansible.cfg").touch()  # not this machine's
        (self._directory / "inventory.json").write_text(json.dumps(self._inventory()))
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.stop()

    def _inventory(self) -> dict[str, object]:
        hosts = {
            host.name: {"ansible_host": host.address, "shoal_socket": host.docker_host}
            for host in self.cluster.playground.hosts()
        }
        common = {
            "ansible_user": "root",
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": str(self._directory / "remote"),
            "ansible_ssh_common_args": self._shell.client_options,
            "shoal_command": str(BIN / "shoal"),
            "shoal_manage_service": False,
        }
        children = {name: {"hosts": {host: hosts[host] for host in group}} for name, group in GROUPS.items()}
        return {"all": {"vars": common, "children": children}}

    def play(self, playbook: str, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a playbook; its exit status raises nothing."""
        settings = {
            "ANSIBLE_HOME": self._directory,
            "ANSIBLE_LOCAL_TEMP": self._directory / "local",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": self._directory / "mux",
            "ANSIBLE_CONFIG": self._directory / "ansible.cfg",
            "LC_ALL": "C.UTF-8",
        }
        command = ["env", *(f"{name}={value}" for name, value in settings.items())]
        command += [str(BIN / "ansible-playbook"), "-i", str(self._directory / "inventory.json")]
        return self.cluster.playground.run(CLIENT, [*command, str(PLAYBOOKS / playbook), *words], timeout=90)

    def recap(self, playbook: str, *words: str) -> dict[str, int]:
        """Run a playbook that has to succeed; how many changes it has made on each host."""
        done = self.play(playbook, *words)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        assert "SWMTKN" not in done.stdout + done.stderr, "a join token was shown"
        found = re.findall(r"^(host\d) +: ok=\d+ +changed=(\d+)", done.stdout, re.MULTILINE)
        return {host: int(changes) for host, changes in found}

    def roles(self) -> dict[str, str]:
        """The ready nodes' roles by hostname, from GET /nodes."""
        status, nodes = self.cluster.curl("host1", "GET", "/nodes")
        assert status == 200
        return {
            node["Description"]["Hostname"]: node["Spec"]["Role"]
            for node in nodes
            if node["Status"]["State"] == "ready"
        }


@pytest.fixture(scope="module")
def controller(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """Three engines in no cluster; the tests run in order, each on what the one before left."""
    if not (BIN / "ansible-playbook").exists():
        pytest.skip("ansible-core is not installed: pip install -e '.[dev]'")
    if ssh.server() is None:
        pytest.skip("there is no sshd to log in by: setup/tests unpacks one")
    with (
        playground(hosts=3, managers=0) as cluster,
        Controller(cluster, tmp_path_factory.mktemp("ansible")) as controller,
    ):
        cluster.load(archive)
        yield controller


def test_a_partial_run_founds_no_cluster(controller: Controller) -> None:
    done = controller.play("site.yml", "--tags", "cluster", "--limit", "host2")
    assert done.returncode == 2
    assert "a host of the group managers is left out (host1)" in " ".join(done.stdout.split())


def test_a_run_makes_hosts_a_cluster(controller: Controller) -> None:
    assert controller.recap("site.yml", "--tags", "cluster", "-vvv") == {"host1": 1, "host2": 1, "host3": 1}
    assert controller.roles() == {"host1": "manager", "host2": "manager", "host3": "worker"}


def test_a_second_run_changes_nothing(controller: Controller) -> None:
    assert controller.recap("site.yml", "--tags", "cluster") == {"host1": 0, "host2": 0, "host3": 0}


def test_a_manager_leaves_and_comes_back_by_another(controller: Controller) -> None:
    cluster = controller.cluster
    assert "host2" in cluster.spread(cluster.run("steady", replicas=3))
    changes = controller.recap("leave.yml", "-e", "shoal_leaving=host2")
    assert changes == {"host1": 0, "host2": 4, "host3": 0}
    assert controller.roles() == {"host1": "manager", "host3": "worker"}
    assert set(cluster.spread(cluster.running("steady", 3))) == {"host1", "host3"}
    assert controller.recap("site.yml", "--tags", "cluster", "--limit", "host1,host2")["host2"] == 1
    assert controller.roles() == {"host1": "manager", "host2": "manager", "host3": "worker"}


def test_a_locked_manager_is_unlocked_or_stops_the_run(controller: Controller) -> None:
    cluster = controller.cluster
    cluster.docker("swarm", "update", "--autolock=true")
    key = cluster.docker("swarm", "unlock-key", "--quiet")
    eventually("host2 is locked on disk", lambda: locked_on_disk(cluster, "host2"))
    cluster.playground.restart_daemon("host2")
    stopped = controller.play("site.yml", "--tags", "cluster")
    assert stopped.returncode != 0
    assert "needs to be unlocked" in stopped.stdout
    unlocked = controller.play("site.yml", "--tags", "cluster", "-e", f"shoal_unlock_key={key}")
    assert unlocked.returncode == 0, unlocked.stdout[-6000:]
    assert key not in unlocked.stdout
    cluster.docker("swarm", "update", "--autolock=false")


def test_the_last_managers_do_not_leave(controller: Controller) -> None:
    done = controller.play("leave.yml", "-e", "shoal_leaving=managers")
    assert done.returncode == 2
    assert "No manager of this inventory would stay" in done.stdout
    assert len(controller.roles()) == 3


def test_what_is_packed_is_all_that_is_installed_and_always_the_same(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        command = [sys.executable, PLAYBOOKS / "roles/shoal/files/pack.py", ROOT, tmp_path / name]
        packed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        digests.add((packed["digest"], Path(packed["path"]).read_bytes()))
    assert len(digests) == 1
    listed = subprocess.run(
        ["tar", "-tzf", packed["path"]], capture_output=True, text=True, check=True
    ).stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = [p.removesuffix("*") for p in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    assert {f"shoal/{package}/__init__.py" for package in packages} <= set(listed.split())
    assert "shoal/pyproject.toml" in listed
    assert "__pycache__" not in listed
