"""Flags of `service create` and `service update` against the specs that they mean."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from shoal.cli import service_flags, service_spec
from shoal.cli.network import ipam
from shoal.cli.quantities import duration, nano_cpus, size

PORT_8080 = {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("5s", 5 * 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("100ms", 10**8),
        ("3us", 3000),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-1s", "5x", "1s2"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidArgument, match="no duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("512", 512), ("64m", 64 << 20), ("1G", 1 << 30), ("1.5k", 1536), ("2MiB", 2 << 20), ("7b", 7)],
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "m", "1x", "-1m"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidArgument, match="no size"):
        size(text)


def test_cpus() -> None:
    assert nano_cpus("0.5") == 500_000_000
    for text in ("", "-1", "many", "NaN", "Infinity"):
        with pytest.raises(InvalidArgument, match="no number of CPUs"):
            nano_cpus(text)


@given(st.integers(0, 10**15))
def test_every_number_of_nanoseconds_is_a_duration(count: int) -> None:
    assert duration(f"{count}ns") == count


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8080:80", [PORT_8080]),
        ("80", [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]),
        ("53:53/udp", [{"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "ingress"}]),
        ("8080-8081:80-81", [PORT_8080, PORT_8080 | {"TargetPort": 81, "PublishedPort": 8081}]),
        ("published=8080,target=80", [PORT_8080]),
        ("published=8080,target=80,mode=host", [PORT_8080 | {"PublishMode": "host"}]),
        ("target=80", [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]),
    ],
)
def test_published_ports(text: str, ports: list[dict[str, Any]]) -> None:
    assert service_flags.published_ports(text) == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0:80",
        "8080:70000",
        "x:80",
        "127.0.0.1:80:80",
        "80/icmp",
        "8080-8081:80",
        "82-80",
        "port=8",
        "published=1",
    ],
)
def test_what_is_no_published_port(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--publish"):
        service_flags.published_ports(text)


def test_networks() -> None:
    assert service_flags.network("back") == {"Target": "back"}
    attached = service_flags.network("name=back,alias=a,alias=b,driver-opt=k=v")
    assert attached == {"Target": "back", "Aliases": ["a", "b"], "DriverOpts": {"k": "v"}}
    for text in ("alias=a", "name=back,colour=red"):
        with pytest.raises(InvalidArgument, match="--network"):
            service_flags.network(text)


def test_mounts() -> None:
    assert service_flags.mount("type=bind,src=/a,dst=/b,readonly") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
    }
    assert service_flags.mount("target=/b,volume-driver=local") == {
        "Type": "volume",
        "Target": "/b",
        "VolumeOptions": {"DriverConfig": {"Name": "local"}},
    }
    assert service_flags.mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770")["TmpfsOptions"] == {
        "SizeBytes": 1 << 20,
        "Mode": 0o1770,
    }
    for text in ("type=bind,target=/b", "source=/a", "target=/b,colour=red", "target=/b,tmpfs-mode=9", ""):
        with pytest.raises(InvalidArgument, match="--mount"):
            service_flags.mount(text)


def test_subnets_and_gateways_belong_together() -> None:
    assert ipam(("10.1.0.0/24", "10.2.0.0/24"), ("10.1.0.1",), ()) == [
        {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"},
        {"Subnet": "10.2.0.0/24"},
    ]
    with pytest.raises(InvalidArgument, match="--subnet"):
        ipam((), ("10.1.0.1",), ())


def test_created_spec() -> None:
    flags = {
        "name": "web",
        "replicas": 3,
        "publish": ("8080:80",),
        "env": ("A=1",),
        "label": ("tier=front",),
        "network": ("back",),
        "constraint": ("node.role==worker",),
        "placement_pref": ("spread=node.labels.zone",),
        "limit_memory": "64m",
        "limit_cpu": "0.5",
        "restart_condition": "on-failure",
        "update_delay": "2s",
        "health_cmd": "true",
        "health_interval": "5s",
        "stop_grace_period": "3s",
        "host": ("db:10.0.0.9",),
    }
    assert service_spec.created("nginx", ("-g", "daemon off;"), flags) == {
        "Name": "web",
        "Labels": {"tier": "front"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx",
                "Args": ["-g", "daemon off;"],
                "Env": ["A=1"],
                "Hosts": ["10.0.0.9 db"],
                "StopGracePeriod": 3 * 10**9,
                "HealthCheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9},
            },
            "Placement": {
                "Constraints": ["node.role==worker"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
            },
            "Networks": [{"Target": "back"}],
            "Resources": {"Limits": {"MemoryBytes": 64 << 20, "NanoCPUs": 500_000_000}},
            "RestartPolicy": {"Condition": "on-failure"},
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "EndpointSpec": {"Mode": "vip", "Ports": [PORT_8080]},
        "UpdateConfig": {"Delay": 2 * 10**9},
    }


def test_replicas_default_to_one_and_zero_is_kept() -> None:
    assert service_spec.created("i", (), {})["Mode"] == {"Replicated": {"Replicas": 1}}
    assert service_spec.created("i", (), {"replicas": 0})["Mode"] == {"Replicated": {"Replicas": 0}}


def test_global_services_have_no_replicas() -> None:
    spec = service_spec.created("i", (), {"mode": "global"})
    assert spec["Mode"] == {"Global": {}}
    with pytest.raises(InvalidArgument, match="can't be scaled"):
        service_spec.with_replicas(spec, 3)
    with pytest.raises(InvalidArgument, match="does not go with"):
        service_spec.created("i", (), {"mode": "global", "replicas": 2})


BASE = service_spec.created(
    "nginx",
    ("a",),
    {
        "name": "web",
        "env": ("A=1", "B=2"),
        "label": ("x=1",),
        "publish": ("8080:80", "9090:90"),
        "constraint": ("node.role==worker",),
        "network": ("back",),
        "mount": ("target=/data,source=d",),
    },
)


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        ({"image": "nginx:2"}, "TaskTemplate.ContainerSpec.Image", "nginx:2"),
        ({"env_add": ("A=9", "C=3")}, "TaskTemplate.ContainerSpec.Env", ["B=2", "A=9", "C=3"]),
        ({"env_rm": ("A",)}, "TaskTemplate.ContainerSpec.Env", ["B=2"]),
        ({"label_add": ("y=2",), "label_rm": ("x",)}, "Labels", {"y": "2"}),
        ({"force": True}, "TaskTemplate.ForceUpdate", 1),
        ({"constraint_rm": ("node.role==worker",)}, "TaskTemplate.Placement.Constraints", []),
        ({"network_add": ("front",)}, "TaskTemplate.Networks", [{"Target": "back"}, {"Target": "front"}]),
        ({"network_rm": ("back",)}, "TaskTemplate.Networks", []),
        ({"mount_rm": ("/data",)}, "TaskTemplate.ContainerSpec.Mounts", []),
        ({"replicas": 4}, "Mode.Replicated.Replicas", 4),
        ({"read_only": False}, "TaskTemplate.ContainerSpec.ReadOnly", False),
        ({"no_healthcheck": True}, "TaskTemplate.ContainerSpec.HealthCheck", {"Test": ["NONE"]}),
    ],
)
def test_updated_spec(flags: dict[str, Any], path: str, value: object) -> None:
    before = copy.deepcopy(BASE)
    found: Any = service_spec.updated(BASE, None, flags)
    for name in path.split("."):
        found = found[name]
    assert found == value
    assert before == BASE  # the caller's spec is left as it was


def test_ports_are_added_replaced_and_removed() -> None:
    def ports(**flags: tuple[str, ...]) -> list[tuple[Any, Any]]:
        spec = service_spec.updated(BASE, None, flags)
        return [(port.get("PublishedPort"), port["TargetPort"]) for port in spec["EndpointSpec"]["Ports"]]

    assert ports(publish_add=("7070:70",)) == [(8080, 80), (9090, 90), (7070, 70)]
    assert ports(publish_add=("8080:81",)) == [(9090, 90), (8080, 81)]
    assert ports(publish_add=("1", "2")) == [(8080, 80), (9090, 90), (None, 1), (None, 2)]
    assert ports(publish_rm=("80",)) == [(9090, 90)]
    assert ports(publish_rm=("80/udp",)) == [(8080, 80), (9090, 90)]
    with pytest.raises(InvalidArgument, match="--publish-rm"):
        ports(publish_rm=("web",))


def test_no_flags_change_nothing() -> None:
    assert service_spec.updated(BASE, None, {}) == BASE


def test_arguments_are_replaced_only_when_given() -> None:
    assert service_spec.updated(BASE, [], {})["TaskTemplate"]["ContainerSpec"]["Args"] == []
    assert service_spec.updated(BASE, None, {})["TaskTemplate"]["ContainerSpec"]["Args"] == ["a"]


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ({"mode": "replicated-job", "replicas": 5}, {"MaxConcurrent": 5, "TotalCompletions": 5}),
        ({"mode": "replicated-job"}, {"MaxConcurrent": 1, "TotalCompletions": 1}),
        (
            {"mode": "replicated-job", "replicas": 5, "max_concurrent": 2},
            {"MaxConcurrent": 2, "TotalCompletions": 5},
        ),
    ],
)
def test_replicated_jobs(flags: dict[str, Any], mode: dict[str, int]) -> None:
    spec = service_spec.created("i", (), flags)
    assert spec["Mode"] == {"ReplicatedJob": mode}
    assert service_spec.with_replicas(spec, 9)["Mode"]["ReplicatedJob"] == {**mode, "TotalCompletions": 9}


def test_global_jobs() -> None:
    spec = service_spec.created("i", (), {"mode": "global-job"})
    assert spec["Mode"] == {"GlobalJob": {}}
    with pytest.raises(InvalidArgument, match="can't be scaled"):
        service_spec.with_replicas(spec, 2)
    for flags in ({"mode": "global-job", "replicas": 2}, {"max_concurrent": 2}):
        with pytest.raises(InvalidArgument):
            service_spec.created("i", (), flags)
