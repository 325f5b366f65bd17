"""The flags of `docker service update`, by their effects.

One update has them all, of a service that had the opposite of everything. `--health-start-interval` is left
out: the docker command 28 takes it and sends nothing of it.
"""

from collections.abc import Iterator

import pytest

from tests.playground.clients.coverage import Flag, covers
from tests.playground.clients.seen import Seen
from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

NS = 1_000_000_000
SCRIPT = "'echo started; while :; do sleep 0.1; done'"
BEFORE = (
    *(
        "--replicas",
        "1",
        "--label",
        "old=1",
        "--container-label",
        "old=1",
        "--env",
        "OLD=1",
        "--env",
        "KEPT=1",
    ),
    *("--group", "users", "--host", "old:10.9.9.9", "--cap-add", "SYS_NICE", "--cap-drop", "CHOWN"),
    *("--sysctl", "net.core.somaxconn=321", "--ulimit", "nofile=99:199", "--dns", "192.0.2.99"),
    *("--dns-search", "old.example", "--dns-option", "ndots:7", "--mount", "type=tmpfs,target=/old"),
    *("--secret", "oldkey", "--config", "source=oldconf,target=/etc/old.conf", "--network", "oldnet"),
    *("--constraint", "node.hostname==host3", "--publish", "published=8130,target=80,mode=host"),
    *("--placement-pref", "spread=node.labels.old", "--entrypoint", "sleep", "--stop-grace-period", "1s"),
)
UPDATED = [
    Flag("--args", SCRIPT, lambda s: "echo started" in s.sh("tr '\\0' ' ' </proc/1/cmdline")),
    Flag("--entrypoint", "sh -c", lambda s: " sh -c echo" in s.sh("tr '\\0' ' ' </proc/1/cmdline")),
    Flag("--image", "busybox:other", lambda s: s.container["Config"]["Image"] == "busybox:other"),
    Flag("--replicas", "2", lambda s: len(s.cluster.tasks_in("changed", "running")) == 2),
    Flag("--replicas-max-per-node", "1", lambda s: s.spread == ["host1", "host2"]),
    Flag("--constraint-add", "node.hostname!=host3", lambda s: s.spread == ["host1", "host2"]),
    Flag("--constraint-rm", "node.hostname==host3", lambda s: s.constraints == ["node.hostname!=host3"]),
    Flag("--label-add", "new=2", lambda s: s.service["Spec"]["Labels"].get("new") == "2"),
    Flag("--label-rm", "old", lambda s: "old" not in s.service["Spec"]["Labels"]),
    Flag("--container-label-add", "new=2", lambda s: s.container["Config"]["Labels"]["new"] == "2"),
    Flag("--container-label-rm", "old", lambda s: "old" not in s.container["Config"]["Labels"]),
    Flag("--env-add", "NEW=2", lambda s: {"NEW=2", "KEPT=1"} <= set(s.environ)),
    Flag("--env-rm", "OLD", lambda s: "OLD=1" not in s.environ),
    Flag("--user", "www-data", lambda s: s.status["Uid"].split()[0] == "33"),
    Flag("--group-add", "nobody", lambda s: "65534" in s.status["Groups"].split()),
    Flag("--group-rm", "users", lambda s: "100" not in s.status["Groups"].split()),
    Flag("--workdir", "/srv", lambda s: s.sh("readlink /proc/1/cwd") == "/srv"),
    Flag("--hostname", "renamed", lambda s: s.sh("hostname") == "renamed"),
    Flag("--host-add", "new:10.8.8.8", lambda s: ["10.8.8.8", "new"] in s.hosts_file),
    Flag("--host-rm", "old:10.9.9.9", lambda s: ["10.9.9.9", "old"] not in s.hosts_file),
    Flag("--cap-add", "NET_ADMIN", lambda s: s.capable(12) and s.capable(23)),
    Flag("--cap-drop", "MKNOD", lambda s: not s.capable(27) and not s.capable(0)),
    Flag("--sysctl-add", "net.ipv4.ip_default_ttl=33", lambda s: s.sysctl("net/ipv4/ip_default_ttl") == "33"),
    Flag("--sysctl-rm", "net.core.somaxconn", lambda s: s.sysctl("net/core/somaxconn") != "321"),
    Flag("--ulimit-add", "nproc=77:88", lambda s: s.rlimit("Max processes") == ["77", "88"]),
    Flag("--ulimit-rm", "nofile", lambda s: s.rlimit("Max open files") != ["99", "199"]),
    Flag("--oom-score-adj", "123", lambda s: s.sh("cat /proc/1/oom_score_adj") == "123"),
    Flag("--init", "", lambda s: "init" in s.sh("tr '\\0' ' ' </proc/1/cmdline").split()[0]),
    Flag("--read-only", "", lambda s: ",ro" in s.mounts["/"]),
    Flag("--tty", "", lambda s: s.sh("readlink /proc/1/fd/0").startswith("/dev/pts/")),
    Flag("--dns-add", "192.0.2.98", lambda s: s.dns.get("Nameservers") == ["192.0.2.98"]),
    Flag("--dns-rm", "192.0.2.99", lambda s: "192.0.2.99" not in s.dns["Nameservers"]),
    Flag("--dns-search-add", "new.example", lambda s: "search new.example" in s.resolv_conf),
    Flag("--dns-search-rm", "old.example", lambda s: "old.example" not in s.dns["Search"]),
    Flag("--dns-option-add", "timeout:2", lambda s: any("timeout:2" in line for line in s.resolv_conf)),
    Flag("--dns-option-rm", "ndots:7", lambda s: not any("ndots:7" in line for line in s.resolv_conf)),
    Flag("--limit-cpu", "0.5", lambda s: s.limits & {"cpu.cfs_quota_us=50000", "cpu.max=50000 100000"}),
    Flag(
        "--limit-memory",
        "64m",
        lambda s: s.limits & {f"memory.limit_in_bytes={64 << 20}", f"memory.max={64 << 20}"},
    ),
    Flag("--limit-pids", "50", lambda s: "pids.max=50" in s.limits),
    Flag("--reserve-cpu", "0.1", lambda s: s.reserved["NanoCPUs"] == NS // 10),
    Flag("--reserve-memory", "8m", lambda s: s.reserved["MemoryBytes"] == 8 << 20),
    Flag("--mount-add", "type=tmpfs,target=/new,tmpfs-size=1m", lambda s: "size=1024k" in s.mounts["/new"]),
    Flag("--mount-rm", "/old", lambda s: "/old" not in s.mounts),
    Flag("--secret-add", "newkey", lambda s: s.sh("cat /run/secrets/newkey") == "new"),
    Flag("--secret-rm", "oldkey", lambda s: s.sh("ls /run/secrets") == "newkey"),
    Flag("--config-add", "source=newconf,target=/etc/new.conf", lambda s: s.sh("cat /etc/new.conf") == "new"),
    Flag("--config-rm", "oldconf", lambda s: s.sh("ls /etc/old.conf 2>&1 || true").endswith("directory")),
    Flag("--network-add", "name=newnet,alias=other", lambda s: s.resolves("other")),
    Flag("--network-rm", "oldnet", lambda s: s.networks == ["newnet"]),
    Flag("--endpoint-mode", "dnsrr", lambda s: not s.service["Endpoint"].get("VirtualIPs")),
    Flag("--log-driver", "local", lambda s: s.log_config["Type"] == "local"),
    Flag("--log-opt", "max-file=3", lambda s: s.log_config["Config"] == {"max-file": "3"}),
    Flag("--stop-signal", "SIGUSR1", lambda s: s.container["Config"]["StopSignal"] == "SIGUSR1"),
    Flag("--stop-grace-period", "300ms", lambda s: s.container_spec["StopGracePeriod"] == 3 * NS // 10),
    Flag("--isolation", "default", lambda s: s.container_spec["Isolation"] == "default"),
    Flag("--publish-rm", "published=8130,target=80,mode=host", lambda s: "80/tcp" not in s.published),
    Flag("--publish-add", "published=8131,target=81,mode=host", lambda s: "81/tcp" in s.published),
    Flag("--placement-pref-add", "spread=node.labels.new", lambda s: s.preferences == ["node.labels.new"]),
    Flag("--placement-pref-rm", "spread=node.labels.old", lambda s: "node.labels.old" not in s.preferences),
    Flag("--health-cmd", "test -e /bin/sh", lambda s: s.health["Status"] == "healthy"),
    Flag("--health-interval", "200ms", lambda s: s.probes(3)),
    Flag("--health-retries", "4", lambda s: s.health_check["Retries"] == 4),
    Flag("--health-timeout", "9s", lambda s: s.health_check["Timeout"] == 9 * NS),
    Flag("--health-start-period", "8s", lambda s: s.health_check["StartPeriod"] == 8 * NS),
    Flag("--restart-condition", "on-failure", lambda s: s.restarts["Condition"] == "on-failure"),
    Flag("--restart-delay", "2s", lambda s: s.restarts["Delay"] == 2 * NS),
    Flag("--restart-max-attempts", "7", lambda s: s.restarts["MaxAttempts"] == 7),
    Flag("--restart-window", "9s", lambda s: s.restarts["Window"] == 9 * NS),
    Flag("--update-parallelism", "2", lambda s: s.updates["Parallelism"] == 2),
    Flag("--update-delay", "10ms", lambda s: s.updates["Delay"] == NS // 100),
    Flag("--update-monitor", "200ms", lambda s: s.updates["Monitor"] == NS // 5),
    Flag(
        "--update-failure-action",
        "continue",
        lambda s: s.updates["FailureAction"] == "continue",
    ),
    Flag(
        "--update-max-failure-ratio",
        "0.25",
        lambda s: s.updates["MaxFailureRatio"] == 0.25,
    ),
    Flag("--update-order", "start-first", lambda s: s.updates["Order"] == "start-first"),
    Flag("--rollback-parallelism", "3", lambda s: s.rollbacks["Parallelism"] == 3),
    Flag("--rollback-delay", "20ms", lambda s: s.rollbacks["Delay"] == NS // 50),
    Flag("--rollback-monitor", "100ms", lambda s: s.rollbacks["Monitor"] == NS // 10),
    Flag(
        "--rollback-failure-action",
        "continue",
        lambda s: s.rollbacks["FailureAction"] == "continue",
    ),
    Flag(
        "--rollback-max-failure-ratio",
        "0.75",
        lambda s: s.rollbacks["MaxFailureRatio"] == 0.75,
    ),
    Flag(
        "--rollback-order",
        "start-first",
        lambda s: s.rollbacks["Order"] == "start-first",
    ),
    Flag("--no-resolve-image", "", lambda s: "@" not in s.container_spec["Image"]),
    Flag("--force", "", lambda s: s.template["ForceUpdate"] == 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def changed(session_cluster: Cluster) -> Iterator[Seen]:
    cluster = session_cluster
    try:
        for name in ("old", "new"):
            cluster.docker("secret", "create", f"{name}key", "-", stdin=name)
            cluster.docker("config", "create", f"{name}conf", "-", stdin=name)
            cluster.docker("network", "create", "--driver", "overlay", f"{name}net")
        for host in cluster.hosts:
            cluster.docker("tag", "busybox", "busybox:other", host=host)
        cluster.docker(
            "service", "create", "--detach", "--no-resolve-image", "--name", "changed", *BEFORE,
            "busybox", "infinity",
        )  # fmt: skip
        cluster.running("changed", 1)
        words = [flag.word for flag in UPDATED]
        cluster.docker("service", "update", "--detach", *words, "changed")
        eventually("it is updated", lambda: updated(cluster, "changed"))
        yield Seen(cluster, "changed", cluster.running("changed", 2)[0])
    finally:
        cluster.clear()
        for host in cluster.hosts:
            cluster.docker("rmi", "busybox:other", host=host)


def updated(cluster: Cluster, name: str) -> bool:
    """Whether the service's last update is complete."""
    status = cluster.inspect("service", name).get("UpdateStatus", {})
    return status.get("State") in ("completed", "rollback_completed")


@covers("service update", *(flag.flag for flag in UPDATED))
@pytest.mark.parametrize("flag", UPDATED, ids=str)
def test_an_update(changed: Seen, flag: Flag) -> None:
    assert flag.shows(changed), changed.everything()
