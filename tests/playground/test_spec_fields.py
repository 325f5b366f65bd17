"""The fields of a service's spec, written as the API has them: each by its effect inside the container.

What the docker command has a flag for is tried in `clients/`; here are the fields together in one container,
and those that no flag reaches.
"""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cluster.spec import HealthConfig
from tests.support.cluster import Cluster, eventually
from tests.support.images import DEFAULT_CONFIG, build_image

pytestmark = pytest.mark.playground

Json = dict[str, Any]
SLEEP = ["sleep", "infinity"]
NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}


def encoded(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return b64encode(text.encode()).decode()


def service(name: str, container: Json, **template: Any) -> Json:
    filled = {"Image": "busybox", "Args": SLEEP, "StopGracePeriod": 300_000_000, **container}
    labels = template.pop("Labels", {})
    rest = {key: template.pop(key) for key in ("EndpointSpec", "Mode") if key in template}
    return {"Name": name, "Labels": labels, "TaskTemplate": {"ContainerSpec": filled, **template}, **rest}


def started(cluster: Cluster, name: str, container: Json, **template: Any) -> Json:
    status, answer = cluster.curl("host1", "POST", "/services/create", service(name, container, **template))
    assert status == 201, answer
    (task,) = cluster.running(name, 1)
    return task


def made(cluster: Cluster, kind: str, name: str, text: str, **fields: Any) -> Json:
    """A reference to a new secret or config."""
    body = {"Name": name, "Data": encoded(text), **fields}
    status, answer = cluster.curl("host1", "POST", f"/{kind}s/create", body)
    assert status == 201, answer
    return {f"{kind.capitalize()}ID": answer["ID"], f"{kind.capitalize()}Name": name}


def test_one_container_with_nearly_everything(cluster: Cluster) -> None:
    go = {"Templating": {"Name": "golang"}}
    secret = made(cluster, "secret", "key", "s3cr3t")
    config = made(
        cluster, "config", "conf", '{{.Task.Slot}}/{{secret "key"}}/{{env "COLOUR"}}/{{.Node.Hostname}}', **go
    )
    task = started(
        cluster,
        "web",
        {
            "Hostname": '{{.Service.Name}}-{{index .Service.Labels "tier"}}',
            "Env": ["COLOUR={{if eq .Task.Slot \"1\"}}blue{{else}}red{{end}}", "TASK={{.Task.Name}}"],
            "Dir": "/srv/made",
            "User": "www-data",
            "Groups": ["users", "4242"],
            "Privileges": {
                "NoNewPrivileges": True,
                "Seccomp": {"Mode": "custom", "Profile": encoded(NO_MKDIR)},
                "AppArmor": {"Mode": "disabled"},
                "SELinuxContext": {"Disable": True},
            },
            "ReadOnly": True,
            "Init": True,
            "OomScoreAdj": 321,
            "Sysctls": {"net.core.somaxconn": "333", "kernel.shm_rmid_forced": "1"},
            "CapabilityAdd": ["CAP_SYS_NICE"],
            "CapabilityDrop": ["MKNOD"],
            "Ulimits": [
                {"Name": "nofile", "Soft": 100, "Hard": 200},
                {"Name": "core", "Soft": 0, "Hard": -1},
            ],
            "Hosts": ["192.0.2.7 db database", "2001:db8::7 six", "host-gateway gate"],
            "DNSConfig": {"Nameservers": ["192.0.2.53"], "Search": ["example.test"], "Options": ["ndots:3"]},
            "Labels": {"owner": "me"},
            "Isolation": "default",
            "Secrets": [{**secret, "File": {"Name": "key", "UID": "33", "GID": "100", "Mode": 0o440}}],
            "Configs": [{**config, "File": {"Name": "/etc/app.conf", "Mode": 0o644}}, {"ConfigName": "conf"}],
            "Mounts": [
                {
                    "Type": "tmpfs",
                    "Target": "/scratch",
                    "TmpfsOptions": {
                        "SizeBytes": 1 << 20,
                        "Mode": 0o777,
                        "Options": [["exec"], ["uid", "33"]],
                    },
                },
                {
                    "Type": "volume",
                    "Source": "data-{{.Task.Slot}}",
                    "Target": "/data",
                    "VolumeOptions": {
                        "Labels": {"of": "{{.Service.Name}}"},
                        "DriverConfig": {
                            "Name": "local",
                            "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=2m,uid=33"},
                        },
                    },
                },
                {
                    "Type": "image",
                    "Source": "busybox",
                    "Target": "/tools",
                    "ImageOptions": {"Subpath": "etc"},
                },
            ],
        },
        Labels={"tier": "front"},
        Resources={
            "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20, "Pids": 77},
            "Reservations": {"MemoryBytes": 32 << 20},
            "SwapBytes": 0,
            "MemorySwappiness": 17,
        },
        LogDriver={"Name": "local", "Options": {"labels": "owner", "env": "COLOUR", "tag": "{{.Name}}"}},
    )  # fmt: skip
    inside = cluster.enter(
        task,
        "hostname; cat /proc/1/comm; tr '\\0' '\\n' < /proc/1/environ | grep -E '^(COLOUR|TASK)=';"
        "readlink /proc/1/cwd; grep -E '^(Uid|Groups|NoNewPrivs|Seccomp):' /proc/1/status | tr '\\t' ' ';"
        "cat /proc/1/oom_score_adj /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced;"
        "cat /etc/app.conf; echo; cat /conf; echo; cat /run/secrets/key; echo;"
        "stat -c '%a %u %g' /run/secrets/key;"
        "grep -E 'open files|core file' /proc/1/limits | tr -s ' ';"
        "cat /etc/resolv.conf; grep -E 'db|data|six|gate' /etc/hosts; grep -c www-data /tools/passwd;"
        "grep -E ' (/scratch|/data|/tools) ' /proc/mounts; touch /x 2>&1; touch /tools/x 2>&1; true",
    ).splitlines()
    text = "\n".join(inside)
    assert inside[:5] == ["web-front", "docker-init", "COLOUR=blue", f"TASK=web.1.{task['ID']}", "/srv/made"]
    assert "Uid: 33 33 33 33" in text
    assert "Groups: 33 100 4242" in text
    assert "NoNewPrivs: 1" in text
    assert "Seccomp: 2" in text
    at = inside.index("321")
    assert inside[at : at + 3] == ["321", "333", "1"]
    host = cluster.host_of(task)
    assert inside[at + 3 : at + 7] == [f"1/s3cr3t/blue/{host}"] * 2 + ["s3cr3t", "440 33 100"]
    assert "Max open files 100 200 files" in text
    assert "Max core file size 0 unlimited bytes" in text
    assert "nameserver 192.0.2.53" in text or "nameserver 127.0.0.11" in text
    assert "search example.test" in text
    assert "options ndots:3" in text
    names = {line.split("\t")[1]: line.split("\t")[0] for line in inside if line.count("\t") == 1}
    assert (names["db"], names["database"], names["six"]) == ("192.0.2.7", "192.0.2.7", "2001:db8::7")
    assert names["gate"].count(".") == 3
    scratch = next(line for line in inside if " /scratch " in line)
    assert "size=1024k" in scratch
    assert "uid=33" in scratch
    assert "noexec" not in scratch
    assert "/data tmpfs" in text
    assert "size=2048k" in next(line for line in inside if " /data " in line)
    assert sum("Read-only file system" in line for line in inside) == 2
    volume = cluster.inspect("volume", "data-1", host=host)
    assert volume["Labels"] == {"of": "web"}
    container = cluster.container(task)
    assert container["HostConfig"]["NanoCpus"] == 500_000_000
    assert container["HostConfig"]["MemorySwap"] == container["HostConfig"]["Memory"] == 64 << 20
    assert container["HostConfig"]["MemoryReservation"] == 32 << 20
    assert container["HostConfig"]["MemorySwappiness"] == 17
    limits = cluster.enter(
        task,
        "for file in limit_in_bytes soft_limit_in_bytes swappiness; do"
        "  cat /sys/fs/cgroup/memory/memory.$file 2>/dev/null; done;"
        "for file in max low swap.max; do cat /sys/fs/cgroup/memory.$file 2>/dev/null; done; true",
    ).split()
    assert limits in ([str(64 << 20), str(32 << 20), "17"], [str(64 << 20), str(32 << 20), "0"])
    assert container["HostConfig"]["LogConfig"]["Type"] == "local"
    for kind, name in (("secret", "key"), ("config", "conf")):
        assert "in use by the following service: web" in cluster.refused(kind, "rm", name)
    capabilities = int(cluster.enter(task, "grep CapBnd /proc/1/status").split()[1], 16)
    assert capabilities & 1 << 23
    assert not capabilities & 1 << 27

    def mounted() -> str:
        return cluster.playground.run(host, ["grep", "volumes/data-1/", "/proc/mounts"]).stdout

    assert "tmpfs" in mounted()
    cluster.docker("service", "rm", "web")
    eventually("the volume's file system is unmounted", lambda: not mounted())
    assert cluster.docker("volume", "rm", "data-1", host=host) == "data-1"


def test_custom_seccomp_terminals_and_details(cluster: Cluster) -> None:
    profile = {"Seccomp": {"Mode": "custom", "Profile": encoded(NO_MKDIR)}}
    script = "mkdir /tmp/x || echo refused; id -u; tty; echo done; exec sleep infinity"
    started(
        cluster,
        "web",
        {
            "Args": ["sh", "-c", script],
            "Privileges": profile,
            "TTY": True,
            "OpenStdin": True,
            "Labels": {"owner": "me"},
            "Env": ["COLOUR=blue"],
        },
        LogDriver={
            "Name": "json-file",
            "Options": {"labels": "owner", "env": "COLOUR", "tag": "t-{{.Name}}"},
        },
    )
    log = cluster.eventual_logs("web", "done")
    assert "refused" in log
    assert "/dev/pts/0" in log
    line = cluster.docker("service", "logs", "--details", "--raw", "web").splitlines()[-1]
    assert "COLOUR=blue" in line
    assert "owner=me" in line
    assert "tag=t-web.1." in line
    assert "com.docker.swarm.task.id=" in line


def test_a_mode_of_seccomp_and_none_for_logs(cluster: Cluster) -> None:
    task = started(
        cluster, "web", {"Privileges": {"Seccomp": {"Mode": "unconfined"}}}, LogDriver={"Name": "none"}
    )
    assert "Seccomp:\t0" in cluster.enter(task, "grep Seccomp: /proc/1/status")
    identifier = task["Status"]["ContainerStatus"]["ContainerID"]
    said = cluster.refused("logs", identifier[:12], host=cluster.host_of(task))
    assert "configured logging driver does not support reading" in said


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"Mounts": [{"Type": "image", "Source": "no/such:1", "Target": "/x"}]}, "No such image"),
        (
            {
                "Mounts": [
                    {"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"Subpath": "none"}}
                ]
            },
            "cannot access path",
        ),
        ({"Privileges": {"SELinuxContext": {"Type": "container_t"}}}, "this node has no SELinux"),
        ({"User": "mallory"}, "unable to find user mallory"),
        ({"Env": ["A={{.Service.Labels.none}}"]}, None),
    ],
    ids=["image", "subpath", "selinux", "user", "template"],
)
def test_what_a_node_can_not_do_is_said(cluster: Cluster, container: Json, words: str | None) -> None:
    body = service("web", container, RestartPolicy={"Condition": "none"})
    status, answer = cluster.curl("host1", "POST", "/services/create", body)
    if words is None:
        assert status == 400
        assert "no entry for key" in answer["message"]
        return
    assert status == 201
    assert words in cluster.complaint("web")


def test_journald_only_where_it_is(cluster: Cluster) -> None:
    body = service("web", {}, LogDriver={"Name": "journald"}, RestartPolicy={"Condition": "none"})
    status, _ = cluster.curl("host1", "POST", "/services/create", body)
    assert status == 201
    (task,) = eventually("it is looked at", lambda: [t for t in cluster.tasks("web") if "Err" in t["Status"]])
    assert "missing plugin" in task["Status"]["Err"]


def test_bind_mounts_and_copies(cluster: Cluster) -> None:
    folder = cluster.playground.layout.home("host1") / "bound"
    (folder / "below").mkdir(parents=True, exist_ok=True)
    made_anew = folder / "made" / "anew"
    setup = (
        f"mount --bind {folder} {folder} && mount --make-shared {folder}"
        f" && mount -t tmpfs none {folder}/below && touch {folder}/below/deep"
    )
    done = cluster.playground.run("host1", ["sh", "-c", setup])
    assert done.returncode == 0, done.stderr
    binds = {
        "/all": {},
        "/alone": {"NonRecursive": True},
        "/slave": {"Propagation": "rslave"},
        "/ro": None,
        "/top": {"ReadOnlyNonRecursive": True},
        "/force": {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"},
    }
    mounts: list[Json] = [
        {
            "Type": "bind",
            "Source": str(folder),
            "Target": target,
            "ReadOnly": target in ("/ro", "/top", "/force"),
            "Consistency": "cached",
            "BindOptions": options,
        }
        for target, options in binds.items()
    ]
    mounts.append(
        {
            "Type": "bind",
            "Source": str(made_anew),
            "Target": "/new",
            "BindOptions": {"CreateMountpoint": True},
        }
    )
    mounts.append({"Type": "volume", "Source": "copied", "Target": "/usr"})
    mounts.append({"Type": "volume", "Source": "bare", "Target": "/etc", "VolumeOptions": {"NoCopy": True}})
    mounts.append(
        {
            "Type": "volume",
            "Source": "copied",
            "Target": "/again",
            "ReadOnly": True,
            "VolumeOptions": {"Subpath": "bin"},
        }
    )
    try:
        task = started(
            cluster, "web", {"Mounts": mounts}, Placement={"Constraints": ["node.hostname==host1"]}
        )
        script = (
            "for place in /all /alone /slave /ro /top /force /again /new; do "
            "  touch $place/x 2>/dev/null && echo $place;"
            "  touch $place/below/x 2>/dev/null && echo $place/below;"
            "  [ -e $place/below/deep ] && echo $place/below/deep; done;"
            "ls /usr; ls /etc; rm -f /all/x /all/below/x /alone/below/x"
        )
        seen = cluster.enter(task, script).split()
        cluster.playground.run("host1", ["mount", "-t", "tmpfs", "none", f"{folder}/made"])
        passed_on = cluster.enter(
            task, "grep -c ' /slave/made ' /proc/mounts; grep -c ' /all/made ' /proc/mounts; true"
        )
    finally:
        cluster.docker("service", "rm", "web")
        cluster.playground.run("host1", ["umount", "-R", "-l", str(folder)])
    assert seen == [
        "/all", "/all/below", "/all/below/deep",
        "/alone", "/alone/below",
        "/slave", "/slave/below", "/slave/below/deep",
        "/ro/below/deep",
        "/top/below", "/top/below/deep",
        "/force/below/deep",
        "/new",
        "bin", "hostname", "hosts", "resolv.conf",
    ]  # fmt: skip
    assert passed_on.split() == ["1", "0"]
    assert made_anew.is_dir()


def test_a_mount_that_should_pass_on_needs_a_mount_that_does(cluster: Cluster) -> None:
    folder = cluster.playground.layout.home("host1") / "private"
    folder.mkdir(exist_ok=True)
    mount = {"Type": "bind", "Source": str(folder), "Target": "/x", "BindOptions": {"Propagation": "rshared"}}
    body = service(
        "web", {"Mounts": [mount]}, RestartPolicy={"Condition": "none"},
        Placement={"Constraints": ["node.hostname==host1"]},
    )  # fmt: skip
    cluster.curl("host1", "POST", "/services/create", body)
    assert "but it is not a shared mount" in cluster.complaint("web")


def test_an_images_health_check_and_what_a_service_makes_of_it(cluster: Cluster, tmp_path: Path) -> None:
    check = HealthConfig(test=["CMD-SHELL", "test -e /tmp/well"], interval=100_000_000, retries=1000)
    archive = build_image(tmp_path, "checked:1", config=replace(DEFAULT_CONFIG, healthcheck=check))
    cluster.load(archive)
    # Zero values take what the image says; the test is the image's, the retries are the service's.
    for name, given in (("whole", None), ("part", {"Retries": 2}), ("none", {"Test": ["NONE"]})):
        body = service(
            name,
            {"Image": "checked:1", "Healthcheck": given, "Env": ["WELL=no"]},
            RestartPolicy={"Condition": "none"},
        )
        status, answer = cluster.curl("host1", "POST", "/services/create", body)
        assert status == 201, answer
    (unchecked,) = cluster.running("none", 1)
    assert "Health" not in cluster.container(unchecked)["State"]
    assert "unhealthy" in cluster.complaint("part")
    (task,) = eventually("it starts", lambda: cluster.tasks_in("whole", "starting"))
    state = eventually("it is probed", lambda: probed(cluster, task))
    assert (state["Status"], state["Log"][-1]["ExitCode"]) == ("starting", 1)
    cluster.enter(cluster.tasks_in("whole", "starting")[0], "touch /tmp/well")
    (healthy,) = cluster.running("whole", 1)
    assert cluster.container(healthy)["State"]["Health"]["Status"] == "healthy"


def probed(cluster: Cluster, task: Json) -> Json | None:
    """The health of the task's container, once it has failed at least twice."""
    for each in cluster.tasks("whole"):
        if each["ID"] == task["ID"] and each["Status"].get("ContainerStatus"):
            health: Json = cluster.container(each)["State"].get("Health", {})
            return health if health.get("FailingStreak", 0) > 1 else None
    return None
