"""What a service's options do to its containers, as seen from inside them."""

import json
import re
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground


def test_env_user_workdir_hostname_and_labels(cluster: Cluster) -> None:
    script = 'echo "$COLOUR/$EMPTY/$(id)/$(pwd)/$(hostname)/$(grep -c "10.1.2.3.db" /etc/hosts)"'
    (task,) = cluster.run(
        "web", "--env", "COLOUR=blue", "--env", "EMPTY=", "--user", "www-data:users", "--group", "nobody",
        "--workdir", "/srv", "--hostname", "{{.Service.Name}}-{{.Task.Slot}}", "--host", "db:10.1.2.3",
        "--container-label", "owner=me",
        "--", "sh", "-c", f"{script}; sleep infinity",
    )  # fmt: skip
    line = cluster.eventual_logs("web", "web-1").strip()
    assert line == "blue//uid=33(www-data) gid=100(users) groups=100(users),65534(nobody)//srv/web-1/1"
    labels = cluster.container(task)["Config"]["Labels"]
    assert labels["owner"] == "me"
    assert labels["com.docker.swarm.service.name"] == "web"
    assert labels["com.docker.swarm.task.id"] == task["ID"]
    name = f"web.1.{task['ID']}"
    assert cluster.docker("ps", "--format", "{{.Names}}", host=cluster.host_of(task)) == name


def test_entrypoint_and_arguments(cluster: Cluster) -> None:
    script = 'echo "entry $0 $1"; sleep infinity'
    cluster.create("web", "--entrypoint", "sh -c", "--", script, "one", "two")
    assert cluster.eventual_logs("web", "entry") == "entry one two"
    cluster.update("web", "--args", "'echo changed; sleep 100'")
    assert "changed" in cluster.eventual_logs("web", "changed")


def test_bind_volume_and_tmpfs_mounts(cluster: Cluster) -> None:
    shared = cluster.playground.layout.home("host2") / "shared"
    shared.mkdir(exist_ok=True)
    (shared / "greeting").write_text("hello\n")
    (task,) = cluster.run(
        "web", "--constraint", "node.hostname==host2",
        "--mount", f"type=bind,source={shared},target=/bound",
        "--mount", f"type=bind,source={shared},target=/looked-at,readonly",
        "--mount", f"type=bind,source={shared / 'greeting'},target=/one/file,readonly",
        "--mount", "type=volume,source=data,target=/data",
        "--mount", "type=tmpfs,target=/scratch,tmpfs-size=1048576",
    )  # fmt: skip
    assert cluster.enter(task, "cat /bound/greeting") == "hello"
    assert cluster.enter(task, "cat /one/file; echo x 2>&1 >/one/file || true").startswith("hello")
    assert (shared / "greeting").read_text() == "hello\n"
    cluster.enter(task, "echo back > /bound/answer; echo kept > /data/file")
    assert (shared / "answer").read_text() == "back\n"
    assert "Read-only" in cluster.enter(task, "echo x 2>&1 > /looked-at/x || true")
    assert re.search(r"^tmpfs +1024 .*/scratch$", cluster.enter(task, "df -k /scratch | tail -1"))
    assert (
        cluster.enter(task, "head -c 2000000 /dev/zero >/scratch/big 2>/dev/null; wc -c </scratch/big")
        == "1048576"
    )
    assert cluster.docker("volume", "ls", "--quiet", host="host2") == "data"

    cluster.update("web", "--force")
    replaced = cluster.replaced("web", task)
    assert cluster.enter(replaced, "cat /data/file") == "kept"
    assert cluster.enter(replaced, "ls /scratch") == ""


def test_a_bind_mount_of_nothing_is_said(cluster: Cluster) -> None:
    cluster.create(
        "web", "--mount", "type=bind,source=/no/such/folder,target=/x", "--restart-condition", "none"
    )
    said = cluster.complaint("web")
    assert "/no/such/folder" in said
    assert [task["Status"]["State"] for task in cluster.tasks("web")] == ["rejected"]


def test_read_only_root_and_init(cluster: Cluster) -> None:
    (task,) = cluster.run("web", "--read-only", "--init", "--", "sh", "-c", "sleep infinity & wait")
    assert "Read-only" in cluster.enter(task, "touch /x 2>&1 || true")
    assert "init" in cluster.enter(task, "cat /proc/1/cmdline")
    # An init reaps what others leave behind.
    cluster.enter(task, "(sleep 0.01 &) ; true")
    eventually("no zombies", lambda: " Z" not in cluster.enter(task, "ps -o stat,comm"))


def test_limits_stand_in_the_cgroup(cluster: Cluster) -> None:
    forks = "for i in $(seq 60); do sleep 1 & done; sleep infinity"
    limits = ("--limit-memory", "64m", "--limit-cpu", "0.5", "--limit-pids", "50")
    (task,) = cluster.run(
        "web", *limits, "--restart-condition", "none", "--", "sh", "-c", f"({forks}) 2>&1; sleep infinity"
    )
    host, pid = cluster.host_of(task), cluster.container(task)["State"]["Pid"]
    script = """
    for line in $(cat /proc/$1/cgroup); do
        controllers=$(echo $line | cut -d: -f2); path=$(echo $line | cut -d: -f3)
        for file in memory.limit_in_bytes memory.max cpu.cfs_quota_us cpu.cfs_period_us cpu.max pids.max; do
            for place in /sys/fs/cgroup/$controllers$path /sys/fs/cgroup/unified$path /sys/fs/cgroup$path; do
                if [ -e $place/$file ]; then echo $file=$(cat $place/$file); fi
            done
        done
    done
    """
    found = set(cluster.playground.run(host, ["sh", "-c", script, "-", str(pid)]).stdout.splitlines())
    assert found & {f"memory.limit_in_bytes={64 << 20}", f"memory.max={64 << 20}"}
    assert {"cpu.cfs_quota_us=50000", "cpu.cfs_period_us=100000"} <= found or "cpu.max=50000 100000" in found
    assert "pids.max=50" in found
    assert "can't fork" in cluster.eventual_logs("web", "fork")  # and it holds


def test_a_task_that_eats_too_much_memory_is_killed_and_said_so(cluster: Cluster) -> None:
    cluster.create(
        "web", "--limit-memory", "16m", "--restart-condition", "none", "--",
        "sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' 'x'); sleep infinity",
    )  # fmt: skip
    (task,) = eventually(
        "it fails", lambda: [t for t in cluster.tasks("web") if t["Status"]["State"] == "failed"]
    )
    assert task["Status"]["ContainerStatus"]["ExitCode"] == 137
    assert "out of memory" in task["Status"]["Err"].lower() or "oom" in task["Status"]["Err"].lower()
    container = cluster.container(task)
    assert container["State"]["OOMKilled"] is True
    assert container["State"]["Status"] == "exited"


def test_the_stop_signal_and_its_grace(cluster: Cluster) -> None:
    folder = cluster.playground.layout.home("host1") / "ends"
    folder.mkdir(exist_ok=True)
    trap = "touch /ends/told; sleep 1; touch /ends/done; exit 0"
    script = f"trap '{trap}' USR1; touch /ends/up; while :; do sleep 0.05; done"
    cluster.run(
        "polite", "--constraint", "node.hostname==host1",
        "--mount", f"type=bind,source={folder},target=/ends",
        "--stop-signal", "SIGUSR1", "--stop-grace-period", "10s", "--", "sh", "-c", script,
    )  # fmt: skip
    eventually("it listens", (folder / "up").exists)
    cluster.docker("service", "rm", "polite")
    eventually("it ends in its own time", (folder / "done").exists)
    assert (folder / "told").exists()


def test_one_that_does_not_listen_is_killed_after_its_grace(cluster: Cluster) -> None:
    (task,) = cluster.run(
        "deaf", "--stop-grace-period", "300ms", "--", "sh", "-c", "trap '' TERM; sleep infinity"
    )
    cluster.docker("service", "scale", "--detach", "deaf=0")
    host = cluster.host_of(task)
    eventually("it is gone", lambda: not cluster.docker("ps", "--quiet", host=host), seconds=5)


@pytest.mark.parametrize(("code", "state"), [(0, "complete"), (3, "failed")])
def test_exit_codes(cluster: Cluster, code: int, state: str) -> None:
    cluster.create("job", "--restart-condition", "none", "--", "sh", "-c", f"exit {code}")
    (task,) = eventually(
        "it ends", lambda: [t for t in cluster.tasks("job") if t["Status"]["State"] in ("complete", "failed")]
    )
    assert task["Status"]["State"] == state
    assert task["Status"]["ContainerStatus"]["ExitCode"] == code
    if code:
        assert task["Status"]["Err"] == f"task: non-zero exit ({code})"
    listed = cluster.docker("ps", "--all", "--format", "{{.Status}}", host=cluster.host_of(task))
    assert listed.startswith(f"Exited ({code})")


def test_security_defaults(cluster: Cluster) -> None:
    (task,) = cluster.run("web", "--cap-drop", "CHOWN", "--cap-add", "SYS_NICE")
    status = dict(
        line.split(":\t") for line in cluster.enter(task, "cat /proc/1/status").splitlines() if ":\t" in line
    )
    assert status["Seccomp"] == "2"
    capabilities = int(status["CapEff"], 16)
    assert not capabilities & (1 << 21)  # CAP_SYS_ADMIN
    assert not capabilities & (1 << 0)  # CAP_CHOWN, dropped
    assert capabilities & (1 << 23)  # CAP_SYS_NICE, added
    assert cluster.enter(task, "head -c 10 /proc/kcore | wc -c") == "0"


def test_sysctls_and_ulimits(cluster: Cluster) -> None:
    (task,) = cluster.run("web", "--sysctl", "net.core.somaxconn=321", "--ulimit", "nofile=99:199")
    assert cluster.enter(task, "cat /proc/sys/net/core/somaxconn") == "321"
    assert re.search(r"Max open files +99 +199", cluster.enter(task, "cat /proc/1/limits"))


def test_inspect_of_a_container_matches_its_task(cluster: Cluster) -> None:
    (task,) = cluster.run("web", "--env", "A=b")
    host = cluster.host_of(task)
    id = task["Status"]["ContainerStatus"]["ContainerID"]
    inspected = json.loads(cluster.docker("inspect", id[:12], host=host))[0]
    assert inspected["Id"] == id
    assert "A=b" in inspected["Config"]["Env"]
    assert inspected["State"]["Pid"] == task["Status"]["ContainerStatus"]["PID"]
    assert Path(f"/proc/{inspected['State']['Pid']}").name.isdigit()
