"""The flags of `docker service create` that make its containers: one service has them all, in one task."""

from collections.abc import Iterator

import pytest

from tests.playground.clients.coverage import Flag, covers
from tests.playground.clients.seen import Seen
from tests.support.cluster import Cluster

pytestmark = pytest.mark.playground

SCRIPT = "trap 'exit 0' USR1; echo started; while :; do sleep 0.1; done"

CONTAINER = [
    Flag("--name", "whole", lambda s: s.service["Spec"]["Name"] == "whole" and s.sh("hostname") == "whole-1"),
    Flag("--replicas", "1", lambda s: s.service["Spec"]["Mode"] == {"Replicated": {"Replicas": 1}}),
    Flag("--mode", "replicated", lambda s: len(s.cluster.tasks_in("whole", "running")) == 1),
    Flag("--constraint", "node.hostname==host2", lambda s: s.host == "host2"),
    Flag("--label", "team=blue", lambda s: s.service["Spec"]["Labels"] == {"team": "blue"}),
    Flag("--container-label", "of=box", lambda s: s.container["Config"]["Labels"]["of"] == "box"),
    Flag("--env", "COLOUR=blue", lambda s: "COLOUR=blue" in s.environ),
    Flag("--env-file", "{folder}/env", lambda s: {"FROM=file", "TWO=2"} <= set(s.environ)),
    Flag("--entrypoint", "sh -c", lambda s: s.sh("tr '\\0' ' ' </proc/1/cmdline").find("sh -c trap") >= 0),
    Flag("--user", "www-data:users", lambda s: s.status["Uid"].split()[0] == "33"),
    Flag("--group", "nobody", lambda s: "65534" in s.status["Groups"].split()),
    Flag("--workdir", "/srv", lambda s: s.sh("readlink /proc/1/cwd") == "/srv"),
    Flag("--hostname", "{{.Service.Name}}-{{.Task.Slot}}", lambda s: s.sh("hostname") == "whole-1"),
    Flag("--host", "db:10.1.2.3", lambda s: ["10.1.2.3", "db"] in s.hosts_file),
    Flag("--cap-add", "SYS_NICE", lambda s: s.capable(23)),
    Flag("--cap-drop", "CHOWN", lambda s: not s.capable(0)),
    Flag(
        "--sysctl", "net.core.somaxconn=321", lambda s: s.sh("cat /proc/sys/net/core/somaxconn") == "321"
    ),
    Flag("--ulimit", "nofile=99:199", lambda s: s.rlimit("Max open files") == ["99", "199"]),
    Flag("--oom-score-adj", "321", lambda s: s.sh("cat /proc/1/oom_score_adj") == "321"),
    Flag("--init", "", lambda s: "init" in s.sh("tr '\\0' ' ' </proc/1/cmdline").split()[0]),
    Flag("--read-only", "", lambda s: ",ro" in s.mounts["/"]),
    Flag("--dns", "192.0.2.53", lambda s: "nameserver 192.0.2.53" in s.resolv_conf),
    Flag("--dns-search", "example.org", lambda s: "search example.org" in s.resolv_conf),
    Flag("--dns-option", "ndots:3", lambda s: any("ndots:3" in line for line in s.resolv_conf)),
    Flag("--limit-cpu", "0.5", lambda s: s.limits & {"cpu.cfs_quota_us=50000", "cpu.max=50000 100000"}),
    Flag(
        "--limit-memory",
        "64m",
        lambda s: s.limits & {f"memory.limit_in_bytes={64 << 20}", f"memory.max={64 << 20}"},
    ),
    Flag("--limit-pids", "50", lambda s: "pids.max=50" in s.limits),
    Flag("--mount", "type=tmpfs,target=/fast,tmpfs-size=1m", lambda s: "size=1024k" in s.mounts["/fast"]),
    Flag(
        "--secret",
        "source=key,target=api,uid=33,mode=0400",
        lambda s: s.sh("cat /run/secrets/api; stat -c ' %a %u' /run/secrets/api") == "s3cr3t 400 33",
    ),
    Flag("--config", "source=settings,target=/etc/app.conf", lambda s: s.sh("cat /etc/app.conf") == "blue"),
    Flag("--log-driver", "json-file", lambda s: s.log_config["Type"] == "json-file"),
    Flag("--log-opt", "max-size=1m", lambda s: s.log_config["Config"] == {"max-size": "1m"}),
    Flag("--stop-signal", "SIGUSR1", lambda s: s.container["Config"]["StopSignal"] == "SIGUSR1"),
    Flag("--stop-grace-period", "3s", lambda s: s.container["Config"]["StopTimeout"] == 3),
    Flag("--isolation", "default", lambda s: s.container_spec["Isolation"] == "default"),
    Flag("--no-healthcheck", "", lambda s: "Health" not in s.container["State"]),
    Flag(
        "--publish",
        "published=8123,target=80,mode=host",
        lambda s: s.container["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] == "8123",
    ),
    Flag("--no-resolve-image", "", lambda s: "@" not in s.container_spec["Image"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(session_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("flags")
    (folder / "env").write_text("FROM=file\n# not this\nTWO=2\n")
    cluster = session_cluster
    try:
        cluster.docker("secret", "create", "key", "-", stdin="s3cr3t")
        cluster.docker("config", "create", "settings", "-", stdin="blue")
        words = [flag.word.replace("{folder}", str(folder)) for flag in CONTAINER]
        cluster.docker("service", "create", "--detach", *words, "busybox", SCRIPT)
        (task,) = cluster.running("whole", 1)
        yield Seen(cluster, "whole", task)
    finally:
        cluster.clear()


@covers("service create", *(flag.flag for flag in CONTAINER))
@pytest.mark.parametrize("flag", CONTAINER, ids=str)
def test_its_containers(whole: Seen, flag: Flag) -> None:
    assert flag.shows(whole), whole.everything()
