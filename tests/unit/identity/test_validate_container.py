"""Container specs that no node could run are refused before anything is stored."""

from typing import Any

import pytest
from msgspec import convert

from cluster.errors import InvalidArgument, ShoalError
from cluster.spec import ContainerSpec
from cluster.validate_container import check_container

SOUND: dict[str, Any] = {
    "Image": "registry:5000/web:1",
    "Env": ["A=1", "B={{.Node.Hostname}}", 'C={{index .Service.Labels "k"}}', "D="],
    "Hostname": "{{.Service.Name}}-{{.Task.Slot}}",
    "Mounts": [
        {"Type": "volume", "Source": "data-{{.Task.Slot}}", "Target": "/data"},
        {"Type": "bind", "Source": "/srv", "Target": "/srv", "BindOptions": {"Propagation": "rslave"}},
        {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o1777}},
    ],
    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000},
    "StopSignal": "RTMIN+3",
    "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": -1}],
    "DNSConfig": {"Nameservers": ["192.0.2.1", "2001:db8::1"]},
    "Hosts": ["192.0.2.1 a b"],
    "Privileges": {
        "Seccomp": {"Mode": "custom", "Profile": "eyJkZWZhdWx0QWN0aW9uIjoiU0NNUF9BQ1RfQUxMT1cifQ=="}
    },
    "Secrets": [{"SecretName": "s", "File": {"Name": "/etc/s", "UID": "33", "GID": "0", "Mode": 0o400}}],
}


def spec(**fields: Any) -> ContainerSpec:
    return convert(SOUND | fields, ContainerSpec)


def ulimit(name: str, soft: int, hard: int) -> dict[str, Any]:
    return {"Name": name, "Soft": soft, "Hard": hard}


def volume_mount(**driver: Any) -> dict[str, Any]:
    return {"Type": "volume", "Source": "ab", "Target": "/x", "VolumeOptions": {"DriverConfig": driver}}


def test_sound() -> None:
    check_container(spec())
    check_container(spec(Hosts=["host-gateway gate", "2001:db8::1 six"], Ulimits=[ulimit("core", -1, -1)]))
    check_container(spec(CapabilityAdd=["net_admin", "CAP_SYS_TIME"], CapabilityDrop=["ALL"]))
    check_container(
        spec(Sysctls={"net.core.somaxconn": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "1"})
    )
    nfs = {"type": "nfs", "o": "addr=192.0.2.1,rw", "device": ":/exports/{{.Task.Slot}}"}
    check_container(spec(Mounts=[volume_mount(Name="local", Options=nfs)]))
    check_container(
        spec(Mounts=[{"Type": "image", "Source": "tools:1", "Target": "/tools", "BindOptions": {}}])
    )
    labelled = spec(Env=["A={{.Service.Labels.colour}}"])
    check_container(labelled, {"colour": "blue"})
    with pytest.raises(InvalidArgument, match="no entry for key"):
        check_container(labelled)
    for name in ("SIGTERM", "term", "9", "SIGRTMAX-1"):
        check_container(spec(StopSignal=name))


@pytest.mark.parametrize(
    "fields",
    [
        {"Image": ""},
        {"Image": "a b"},
        {"Env": ["=x"]},
        {"Env": ["A={{.Nope}}"]},
        {"Env": ["A={{.Service.Name"]},
        {"Hostname": "{{.X}}"},
        {"StopSignal": "FOO"},
        {"StopSignal": "65"},
        {"Isolation": "hyperv"},
        {"OomScoreAdj": 1001},
        {"Mounts": [{"Type": "npipe", "Source": "x", "Target": "/x"}]},
        {"Mounts": [{"Type": "cluster", "Source": "x", "Target": "/x"}]},
        {"Mounts": [{"Type": "floppy", "Source": "x", "Target": "/x"}]},
        {"Mounts": [{"Type": "volume", "Target": "/x", "ReadOnly": True}]},
        {
            "Mounts": [
                {"Type": "volume", "Source": "ab", "Target": "/x", "BindOptions": {"NonRecursive": True}}
            ]
        },
        {"Mounts": [{"Type": "volume", "Source": "ab", "Target": "/x", "VolumeOptions": {"Subpath": "/x"}}]},
        {
            "Mounts": [
                {"Type": "volume", "Source": "ab", "Target": "/x", "VolumeOptions": {"Subpath": "a/../.."}}
            ]
        },
        {"Mounts": [volume_mount(Options={"size": "1g"})]},
        {"Mounts": [volume_mount(Options={"type": "nfs", "o": "addr=192.0.2.1"})]},
        {"Mounts": [volume_mount(Options={"speed": "high"})]},
        {"Mounts": [volume_mount(Options={"device": "{{.Nope}}", "type": "nfs"})]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["remount"]]}}]},
        {"Mounts": [{"Type": "image", "Target": "/x"}]},
        {"Mounts": [{"Type": "image", "Target": "/x", "Source": "A B"}]},
        {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/a",
                    "Target": "/x",
                    "BindOptions": {"ReadOnlyForceRecursive": True},
                }
            ]
        },
        {"Hostname": "h" * 65},
        {"Hostname": "a b"},
        {"Dir": "srv"},
        {"CapabilityAdd": ["CAP_FLY"]},
        {"CapabilityDrop": ["FLY"]},
        {"Sysctls": {"vm.swappiness": "1"}},
        {"Ulimits": [{"Name": "files", "Soft": 1, "Hard": 1}]},
        {"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": 1}]},
        {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}] * 2},
        {"DNSConfig": {"Search": ["a b"]}},
        {"DNSConfig": {"Options": ["ndots:2\nnameserver 192.0.2.1"]}},
        {"Privileges": {"AppArmor": {"Mode": "mine"}}},
        {"Privileges": {"Seccomp": {"Mode": "custom", "Profile": "e30="}}},
        {"Privileges": {"SELinuxContext": {"Disable": True, "Type": "x"}}},
        {"Configs": [{"ConfigName": "c", "Runtime": {}}]},
        {"Secrets": [{"SecretName": "a"}, {"SecretName": "b", "File": {"Name": "/run/secrets/a"}}]},
        {"Mounts": [{"Type": "volume", "Source": "a/b", "Target": "/x"}]},
        {"Mounts": [{"Type": "volume", "Source": "{{.Y}}", "Target": "/x"}]},
        {"Mounts": [{"Type": "volume", "Target": ""}]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/"}]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/x"}, {"Type": "tmpfs", "Target": "/x/"}]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Mode": 1 << 40}}]},
        {"Mounts": [{"Type": "bind", "Source": "a", "Target": "/x"}]},
        {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/x", "BindOptions": {"Propagation": "x"}}]},
        {"Secrets": [{"SecretName": "s", "File": {"Name": "s", "UID": "root"}}]},
        {"Secrets": [{"SecretName": "s", "File": {"Name": "../../etc/passwd"}}]},
        {"Secrets": [{"SecretName": "s", "File": {"Name": "s", "Mode": 1 << 32}}]},
        {"Configs": [{"ConfigName": "c", "File": {"Name": "c"}}, {"ConfigName": "d", "File": {"Name": "c"}}]},
        {"Healthcheck": {"Test": ["NOPE"]}},
        {"Healthcheck": {"Test": ["CMD"]}},
        {"Healthcheck": {"Test": ["CMD", "x"], "Timeout": 1}},
        {"Ulimits": [{"Name": "nofile", "Soft": 3, "Hard": 2}]},
        {"DNSConfig": {"Nameservers": ["resolver"]}},
        {"Hosts": ["name 192.0.2.1"]},
        {"Hosts": ["192.0.2.1"]},
        {"Privileges": {"Seccomp": {"Mode": "x"}}},
        {"Privileges": {"Seccomp": {"Mode": "custom", "Profile": "!!!"}}},
        {"Privileges": {"Seccomp": {"Mode": "custom"}}},
        {"Privileges": {"CredentialSpec": {"File": "x"}}},
    ],
    ids=str,
)
def test_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ShoalError) as refusal:
        check_container(spec(**fields))
    assert refusal.value.status in (InvalidArgument.status, 501)
    assert str(refusal.value)
