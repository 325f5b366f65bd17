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
    "Privileges": {"Seccomp": {"Mode": "custom", "Profile": "e30="}},
    "Secrets": [{"SecretName": "s", "File": {"Name": "/etc/s", "UID": "33", "GID": "0", "Mode": 0o400}}],
}


def spec(**fields: Any) -> ContainerSpec:
    return convert(SOUND | fields, ContainerSpec)


def test_sound() -> None:
    check_container(spec())
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
