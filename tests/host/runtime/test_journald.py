"""The log driver journald, with a journal of its own where the machine has none."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import InvalidArgument
from tests.host.runtime.test_security import run
from tests.support.cluster import eventually
from tests.support.runtime_conformance import MakeConfig
from worker.logs import journald
from worker.runtime import syscalls
from worker.runtime.model import LogConfig
from worker.runtime.oci import OCIRuntime

pytestmark = pytest.mark.host

DAEMON = Path("/lib/systemd/systemd-journald")
JOURNALD = LogConfig(driver="journald", options={"tag": "{{.Name}}-tag", "labels": "tier"})


@pytest.fixture
def journal(mount_namespace: None) -> Iterator[None]:
    """A journal: the machine's, or one in this mount namespace only."""
    if journald.available():
        yield
        return
    if not DAEMON.exists() or os.readlink("/proc/thread-self/ns/mnt") == os.readlink(
        f"/proc/{os.getppid()}/ns/mnt"
    ):
        pytest.skip("needs journald, or a mount namespace of its own to start one in")
    syscalls.mount("tmpfs", "/run", "tmpfs")
    daemon = None
    try:
        machine = Path("/etc/machine-id").read_text().strip()
        Path("/run/systemd/journal").mkdir(parents=True)
        Path(f"/run/log/journal/{machine}").mkdir(parents=True)
        daemon = subprocess.Popen([DAEMON], stderr=subprocess.DEVNULL)
        eventually("the journal is up", journald.available)
        yield
    finally:
        if daemon is not None:
            daemon.kill()
            daemon.wait()
        syscalls.unmount("/run")


async def test_lines_are_in_the_journal_and_in_docker_logs(
    runtime: OCIRuntime, config: MakeConfig, journal: None
) -> None:
    text = await run(
        runtime,
        config,
        "sh",
        "-c",
        "echo told; echo wrong >&2",
        name="web.1.xyz",
        log=JOURNALD,
        labels={"tier": "x"},
    )
    assert sorted(text.split()) == ["told", "wrong"]
    (made,) = (each for each, _ in runtime.list())
    query = ["journalctl", "--output=json", f"CONTAINER_ID_FULL={made.id}"]

    def lines() -> list[dict[str, str]]:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
        return [json.loads(line) for line in found]

    entries = eventually("both lines are there", lambda: found if len(found := lines()) == 2 else [])
    assert sorted((entry["MESSAGE"].strip(), entry["PRIORITY"]) for entry in entries) == [
        ("told", "6"),
        ("wrong", "3"),
    ]
    assert {entry["CONTAINER_NAME"] for entry in entries} == {"web.1.xyz"}
    assert {entry["CONTAINER_TAG"] for entry in entries} == {"web.1.xyz-tag"}


async def test_without_a_journal_it_is_said(
    runtime: OCIRuntime, config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(journald.must_be_available, "__defaults__", (tmp_path / "none",))
    with pytest.raises(InvalidArgument, match="journald is not enabled on this host"):
        await runtime.create(config("true", log=JOURNALD))
