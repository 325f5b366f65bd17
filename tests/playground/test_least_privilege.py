"""The manager process holds no privileges, and root's files and tasks' secrets are closed to its user."""

from pathlib import Path

import pytest

from shoal.daemon.manager_account import manager_account
from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

ACCOUNT = manager_account()
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def run(cluster: Cluster, host: str, *words: str) -> str:
    """A command's output, as root on a host."""
    done = cluster.playground.run(host, words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manager_status(cluster: Cluster, host: str) -> dict[str, str]:
    """/proc/PID/status of the host's manager."""
    (pid,) = run(cluster, host, "pgrep", "-f", "--", "-m manager ").split()
    lines = run(cluster, host, "cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def assert_unprivileged(cluster: Cluster, host: str) -> None:
    status = manager_status(cluster, host)
    assert status["Uid"].split() == [str(ACCOUNT.uid)] * 4
    assert status["Gid"].split() == [str(ACCOUNT.gid)] * 4
    assert status["Groups"] == ""
    assert {name: int(status[name], 16) for name in CAPABILITIES} == dict.fromkeys(CAPABILITIES, 0)
    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0077"


def refused(cluster: Cluster, host: str, path: str) -> bool:
    """Whether the manager's user may not read it."""
    become = (f"--reuid={ACCOUNT.uid}", f"--regid={ACCOUNT.gid}", "--clear-groups", "--bounding-set=-all")
    done = cluster.playground.run(host, ["setpriv", *become, "cat", path])
    return done.returncode != 0 and "Permission denied" in done.stderr


def test_every_manager_has_given_up_root(cluster: Cluster) -> None:
    for host in cluster.hosts:
        assert_unprivileged(cluster, host)
        found = run(cluster, host, "shoal", "doctor", "--verbose")
        assert f"user {ACCOUNT.uid}, no capabilities" in found


def test_secrets_of_tasks_and_roots_files_are_closed_to_it(cluster: Cluster) -> None:
    cluster.docker("secret", "create", "key", "-", stdin="s3cr3t")
    (task,) = cluster.run("web", "--secret", "source=key,mode=0444")
    host = cluster.host_of(task)
    found = run(cluster, host, "find", "/run/shoal/containers/files", "-type", "f").split()
    secrets = [path for path in found if run(cluster, host, "cat", path) == "s3cr3t"]
    assert secrets
    for path in (*secrets, "/etc/shadow"):
        assert refused(cluster, host, path), path
    assert not refused(cluster, host, "/etc/hosts")


def owners(directory: Path) -> set[tuple[int, int]]:
    """Of all that is in it."""
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in (directory, *directory.rglob("*"))}


def test_state_that_is_roots_is_handed_over_at_the_next_start(fragile: Cluster) -> None:
    """As an upgrade of an older version finds it, and a restored backup."""
    raft = fragile.playground.host("host2").data / "swarm" / "raft"
    assert owners(raft) == {tuple(ACCOUNT)}
    fragile.playground.stop_daemon("host2")
    run(fragile, "host2", "chown", "-R", "0:0", str(raft.parent))
    run(fragile, "host2", "chmod", "-R", "go-rwx", str(raft.parent))
    fragile.playground.restart_daemon("host2")
    fragile.wait_ready(3)
    assert owners(raft) == {tuple(ACCOUNT)}
    assert_unprivileged(fragile, "host2")


def test_a_renewed_certificate_reaches_the_manager(fragile: Cluster) -> None:
    """A demotion and promotion renew it twice, and take the state away between."""
    home = fragile.playground.host("host3").data / "swarm"
    before = (home / "certificates/node.crt").read_bytes()
    fragile.docker("node", "demote", "host3")
    eventually(
        "no manager", lambda: fragile.playground.run("host3", ["pgrep", "-f", "--", "-m manager "]).returncode
    )
    eventually("no state", lambda: not (home / "raft").exists())
    fragile.docker("node", "promote", "host3")
    fragile.wait_ready(3)
    assert (home / "certificates/node.crt").read_bytes() != before
    assert owners((home / "certificates").resolve()) == {(0, ACCOUNT.gid)}
    assert owners(home / "raft") == {tuple(ACCOUNT)}
    assert_unprivileged(fragile, "host3")


def test_one_survivor_and_a_restored_backup_give_up_root_too(fragile: Cluster, tmp_path: Path) -> None:
    """What root writes for the next manager, the manager can use."""
    (tmp_path / "passphrase").write_text("a long passphrase")
    passphrase, backup = f"--passphrase-file={tmp_path / 'passphrase'}", str(tmp_path / "backup")
    run(fragile, "host1", "shoal", "cluster", "backup", passphrase, backup)
    for host in ("host2", "host3"):
        fragile.playground.kill(host)
    at = ("--advertise-addr", fragile.address("host1"))
    force = ["docker", "swarm", "init", "--force-new-cluster", *at]  # refused until the others are missed
    eventually("alone", lambda: fragile.playground.run("host1", force).returncode == 0)
    assert_unprivileged(fragile, "host1")
    assert owners(fragile.playground.host("host1").data / "swarm" / "raft") == {tuple(ACCOUNT)}
    run(fragile, "host1", "shoal", "cluster", "restore", "--force", passphrase, *at, backup)
    assert_unprivileged(fragile, "host1")
    assert owners(fragile.playground.host("host1").data / "swarm" / "raft") == {tuple(ACCOUNT)}
    assert "host1" in run(fragile, "host1", "docker", "node", "ls")
