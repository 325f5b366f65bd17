"""A secret is on no disk in clear, in no log, command line or environment, and only where it is needed."""

import base64
import json
import logging
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.guarantees.hosts import daemon_pid
from tests.support.cluster import Cluster, eventually
from tests.unit.api.manager import Api, start

# What it looks for comes reversed, so that no process of the search itself holds it before it looks.
_SEARCH = """
import json, os, sys
where, patterns = sys.argv[1], [bytes.fromhex(word)[::-1] for word in sys.argv[2:]]
found = set()

def look(name, data):
    if any(pattern in data for pattern in patterns):
        found.add(name)

def pieces(pid):
    for line in open(f"/proc/{pid}/maps"):
        span, rights = line.split()[:2]
        if "r" in rights and "w" in rights and not line.rstrip().endswith("[vvar]"):
            yield [int(edge, 16) for edge in span.split("-")]

def search_memory(pid, name):
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for start, end in pieces(pid):
            try:
                memory.seek(start)
                look(name, memory.read(end - start))
            except OSError:
                continue

for pid in (entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()):
    try:
        words = open(f"/proc/{pid}/cmdline", "rb").read()
        name = words.replace(b"\\0", b" ").decode(errors="replace")[:80]
        if where == "memory":
            search_memory(pid, name)
        elif where == "processes":
            look(name, words)
            look(name, open(f"/proc/{pid}/environ", "rb").read())
    except OSError:
        continue
if where == "run":
    for here, _, files in os.walk("/run"):
        for file in files:
            path = os.path.join(here, file)
            try:
                if os.path.isfile(path):
                    look(path, open(path, "rb").read())
            except OSError:
                continue
print(json.dumps(sorted(found)))
"""


class Marker:
    """A secret value that is found again wherever it is, in clear or in base64."""

    def __init__(self) -> None:
        self.value = f"marker-{secrets.token_hex(24)}"
        clear = self.value.encode()
        self.patterns = [clear, *(base64.b64encode(b"x" * n + clear)[4 * bool(n) :][:40] for n in range(3))]

    def in_disks_of(self, cluster: Cluster) -> list[str]:
        """The files of all hosts' disks and logs that have it: all that outlives a loss of power."""
        found = []
        for path in cluster.playground.layout.directory.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                if any(pattern in content for pattern in self.patterns):
                    found.append(str(path))
        return found

    def on(self, cluster: Cluster, host: str, where: str) -> list[str]:
        """Which processes (`memory`, `processes`) or files (`run`, the host's tmpfs) of a host have it."""
        words = [pattern[::-1].hex() for pattern in self.patterns]
        done = cluster.playground.run(host, [sys.executable, "-c", _SEARCH, where, *words], 60)
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)
        return found


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = await start()
    yield api
    await api.client.close()


@pytest.fixture
def marker(cluster: Cluster) -> Marker:
    """A secret that a task on host2 uses, and no other node."""
    marker = Marker()
    cluster.docker("secret", "create", "key", "-", stdin=marker.value)
    (task,) = cluster.run("user", "--secret", "key", "--constraint", "node.hostname==host2")
    assert cluster.enter(task, "cat /run/secrets/key") == marker.value
    return marker


@pytest.mark.playground
def test_the_search_finds_what_is_there(cluster: Cluster, tmp_path: Path) -> None:
    """Otherwise its silence would prove nothing."""
    marker = Marker()
    cluster.docker("config", "create", "plain", "-", stdin=marker.value)  # configs are no secrets
    options = ("--config", "plain", "--env", f"PLAIN={marker.value}", "--constraint", "node.hostname==host3")
    cluster.run("open", *options)
    assert any("sleep" in name for name in marker.on(cluster, "host3", "processes"))
    assert any("shoald" in name for name in marker.on(cluster, "host3", "memory"))
    assert marker.on(cluster, "host3", "run")
    assert marker.in_disks_of(cluster), "an environment is in the task's record"
    for padding in range(3):
        (tmp_path / "found").write_bytes(base64.b64encode(b"-" * padding + marker.value.encode()))
        assert any(pattern in (tmp_path / "found").read_bytes() for pattern in marker.patterns)


@pytest.mark.playground
def test_no_disk_log_environment_or_command_line_has_a_secret(cluster: Cluster, marker: Marker) -> None:
    for host in cluster.hosts:
        assert (cluster.playground.host(host).log).read_text().count("level=debug") > 10
        assert marker.on(cluster, host, "processes") == []
    assert marker.in_disks_of(cluster) == []


@pytest.mark.playground
def test_only_nodes_that_run_the_task_and_managers_have_it_in_memory(
    cluster: Cluster, marker: Marker
) -> None:
    assert marker.on(cluster, "host3", "memory") == []
    assert marker.on(cluster, "host3", "run") == []
    assert marker.on(cluster, "host1", "run") == []
    assert any("manager" in name for name in marker.on(cluster, "host1", "memory"))
    holders = marker.on(cluster, "host2", "memory")
    assert holders
    assert daemon_pid(cluster, "host2")
    assert all("shoald" in name for name in holders)


@pytest.mark.playground
def test_it_is_gone_from_the_nodes_files_when_the_task_has_ended(cluster: Cluster, marker: Marker) -> None:
    assert marker.on(cluster, "host2", "run")
    (task,) = cluster.running("user", 1)
    cluster.update("user", "--secret-rm", "key")
    cluster.replaced("user", task)
    eventually("the file is gone", lambda: not marker.on(cluster, "host2", "run"))
    assert cluster.container(task)["State"]["Status"] == "exited"  # kept for its logs
    cluster.docker("secret", "rm", "key")
    assert marker.in_disks_of(cluster) == []


async def test_no_error_and_no_debug_log_of_the_api_repeats_a_secret(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    marker = Marker()
    data = base64.b64encode(marker.value.encode()).decode()
    bodies = [
        {"Name": "key", "Data": [marker.value]},
        {"Name": "key", "Data": marker.value},
        {"Name": "", "Data": data},
        {"Name": "key", "Data": data, "Labels": "none"},
        {"Name": "key", "Data": data, "Driver": {"Name": "vault"}},
        {"Name": "key", "Data": data},
        {"Name": "key", "Data": data},
    ]
    told = [await api("POST", "/secrets/create", body) for body in bodies]
    told.append(await api("POST", "/secrets/create", raw=json.dumps(bodies[-1]).encode()[:-1]))
    assert [status for status, _ in told] == [400, 400, 400, 400, 501, 201, 409, 400]
    for place in (repr(told), caplog.text, repr(await api.ok("GET", "/secrets"))):
        assert not any(pattern.decode() in place for pattern in marker.patterns)
