"""config.json: defaults as dockerd's, and what depends on the host."""

import dataclasses
import resource
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.errors import InvalidArgument
from worker.runtime import apparmor, bundle, capabilities
from worker.runtime.model import ContainerConfig, MountKind, MountPoint, ResourceLimits, Rlimit
from worker.runtime.users import User

HOST = bundle.Host(
    machine="x86_64",
    unified_cgroups=True,
    capabilities=frozenset(capabilities.ALL),
    swap_accounting=True,
    init=None,
)
SOURCES = bundle.Sources(
    Path("/r"), Path("/e/hostname"), Path("/e/hosts"), Path("/e/resolv.conf"), Path("/f")
)


def build(host: bundle.Host = HOST, user: User = User(uid=0, gid=0), **fields: Any) -> dict[str, Any]:  # noqa: B008
    known = {"id": "ab" * 32, "args": ("run",), "layers": (Path("/l"),), "netns": Path("/run/netns/x")}
    return msgspec.json.decode(
        bundle.build(ContainerConfig(**(known | fields)), user, host, SOURCES, "/shoal/x")
    )


def test_defaults() -> None:
    spec = build()
    assert spec["hostname"] == "abababababab"
    assert spec["process"]["capabilities"]["effective"] == sorted(
        capabilities.DEFAULT, key=capabilities.ALL.index
    )
    assert spec["linux"]["cgroupsPath"] == "/shoal/x"
    assert {item["type"] for item in spec["linux"]["namespaces"]} == {
        "pid", "ipc", "uts", "mount", "network", "cgroup",
    }  # fmt: skip
    assert spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert spec["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert spec["process"]["env"][0].startswith("PATH=/usr/local/sbin")


def test_host_network() -> None:
    spec = build(netns=None)
    assert all(item["type"] != "network" for item in spec["linux"]["namespaces"])
    assert "sysctl" not in spec["linux"]
    with pytest.raises(InvalidArgument, match="not allowed in host network"):
        build(netns=None, sysctls={"net.core.somaxconn": "5"})


def test_environment_last_of_a_name_wins() -> None:
    env = build(env=("A=1", "PATH=/bin", "A=2", "GONE"), tty=True)["process"]["env"]
    assert sorted(env) == ["A=2", "HOME=/", "HOSTNAME=abababababab", "PATH=/bin", "TERM=xterm"]


def test_a_user_has_no_effective_capabilities() -> None:
    spec = build(user=User(uid=7, gid=8, groups=(8, 9)))
    assert spec["process"]["capabilities"]["effective"] == []
    assert spec["process"]["capabilities"]["bounding"]
    assert spec["process"]["user"] == {"uid": 7, "gid": 8, "additionalGids": [8, 9]}


def test_resources() -> None:
    found = build(resources=ResourceLimits(memory=1 << 20, nano_cpus=1_500_000_000, pids=7))["linux"][
        "resources"
    ]
    assert found["memory"] == {"limit": 1 << 20, "swap": 2 << 20}
    assert found["cpu"] == {"quota": 150_000, "period": 100_000}
    assert found["pids"] == {"limit": 7}


def test_without_the_capability_limits_are_clamped() -> None:
    few = bundle.Host("x86_64", True, frozenset(capabilities.DEFAULT), True, None)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = {"ulimits": (Rlimit(name="nofile", soft=-1, hard=-1),), "oom_score_adj": -500}
    clamped, free = build(few, **wanted), build(HOST, **wanted)
    assert clamped["process"]["rlimits"][0]["hard"] == (hard if hard >= 0 else (1 << 64) - 1)
    assert "oomScoreAdj" not in clamped["process"]
    assert free["process"]["rlimits"][0]["hard"] == (1 << 64) - 1
    assert free["process"]["oomScoreAdj"] == -500


def test_refusals() -> None:
    with pytest.raises(InvalidArgument, match="install the package tini"):
        build(init=True)
    with pytest.raises(InvalidArgument, match="invalid ulimit type"):
        build(ulimits=(Rlimit(name="nosuch", soft=1, hard=1),))
    with pytest.raises(InvalidArgument, match="oom score"):
        build(oom_score_adj=2000)
    with pytest.raises(InvalidArgument, match="invalid capability"):
        build(cap_add=("NO_SUCH",))


def test_mounts_parents_first_and_users_win() -> None:
    points = (
        MountPoint(kind=MountKind.BIND, target="/a/b", source=Path("/s"), read_only=True),
        MountPoint(kind=MountKind.TMPFS, target="/a", size_bytes=5),
        MountPoint(kind=MountKind.BIND, target="/etc/hosts", source=Path("/mine")),
    )
    mounts = build(mounts=points)["mounts"]
    targets = [item["destination"] for item in mounts]
    assert targets.index("/a") < targets.index("/a/b")
    assert targets.count("/etc/hosts") == 1
    by_target = {item["destination"]: item for item in mounts}
    assert by_target["/etc/hosts"]["source"] == "/mine"
    assert by_target["/a/b"]["options"] == ["rbind", "rprivate", "ro", "rro"]
    assert "size=5" in by_target["/a"]["options"]


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        ((), (), "CAP_CHOWN", "CAP_SYS_ADMIN"),
        (("net_admin",), ("CHOWN",), "CAP_NET_ADMIN", "CAP_CHOWN"),
        (("ALL",), ("SYS_ADMIN",), "CAP_SYS_TIME", "CAP_SYS_ADMIN"),
        (("KILL",), ("ALL",), "CAP_KILL", "CAP_CHOWN"),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], has: str, lacks: str) -> None:
    found = capabilities.effective(add, drop, frozenset(capabilities.ALL))
    assert has in found
    assert lacks not in found
    assert capabilities.effective(add, drop, frozenset()) == []


def test_containers_get_the_limit_of_open_files_from_before_the_daemon_raised_its_own() -> None:
    host = dataclasses.replace(HOST, open_files=1024)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert build(host=host)["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": min(1024, hard), "hard": hard}
    ]
    asked = build(host=host, ulimits=(Rlimit(name="nofile", soft=10, hard=20),))
    assert asked["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]


def test_confinement_where_the_kernel_has_it() -> None:
    armored = dataclasses.replace(HOST, apparmor=True)
    assert "apparmorProfile" not in build()["process"]
    assert build(armored)["process"]["apparmorProfile"] == "docker-default"
    assert build(armored, apparmor_profile="unconfined")["process"]["apparmorProfile"] == "unconfined"
    assert build(armored, privileged=True)["process"]["apparmorProfile"] == "unconfined"

    wanted = {"type": "web_t", "level": "s0:c1,c2"}
    labelled = build(dataclasses.replace(HOST, selinux=True), selinux=wanted)
    assert labelled["process"]["selinuxLabel"] == "system_u:system_r:web_t:s0:c1,c2"
    assert labelled["linux"]["mountLabel"] == "system_u:object_r:container_file_t:s0:c1,c2"
    assert "mountLabel" not in build()["linux"]
    with pytest.raises(InvalidArgument, match="this node has no SELinux"):
        build(selinux=wanted)


def test_the_apparmor_profile_can_be_compiled(tmp_path: Path) -> None:
    parser = apparmor.parser()
    if parser is None:
        pytest.skip("needs apparmor_parser, of Debian's package apparmor")
    made = subprocess.run(
        [parser, "--skip-kernel-load", "--skip-cache", "--names"],
        input=apparmor.profile_text(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout.split() == ["docker-default"]
    (tmp_path / "enabled").write_text("Y\n")
    assert apparmor.supported(tmp_path / "enabled")
    (tmp_path / "enabled").write_text("N\n")
    assert not apparmor.supported(tmp_path / "enabled")
    (tmp_path / "profiles").write_text("docker-default (enforce)\n")
    apparmor.ensure_loaded(tmp_path / "profiles")  # there already: nothing to do


def test_mounts_pass_on_as_far_as_is_asked() -> None:
    def root(*kinds: str) -> str | None:
        mounts = tuple(
            MountPoint(kind=MountKind.BIND, target=f"/{kind}", source=Path("/x"), propagation=kind)
            for kind in kinds
        )
        found: str | None = build(mounts=mounts)["linux"].get("rootfsPropagation")
        return found

    assert root("rprivate") is None
    assert root("rprivate", "slave") == "rslave"
    assert root("rslave", "shared") == "shared"
