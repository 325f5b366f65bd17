"""Specs that are refused, with Docker's words."""

import re
import time
from typing import Any

import msgspec
import pytest

from cluster.errors import Forbidden, NotImplementedHere, ShoalError
from cluster.objects import Network, Subnet
from cluster.spec import ClusterSpec, NetworkSpec, ServiceSpec
from cluster.validate import check_cluster, check_constraints, check_network, check_service
from cluster.validate_ipam import check_subnets_free

CONTAINER = {"Image": "nginx"}


def service(
    container: dict[str, Any] | None = None, template: dict[str, Any] | None = None, **top: Any
) -> None:
    body = {
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {**CONTAINER, **(container or {})}, **(template or {})},
        **top,
    }
    check_service(msgspec.convert(body, ServiceSpec))


@pytest.mark.parametrize("name", ["a", "web-1", "A_b", "x" * 63, "9lives"])
def test_good_names(name: str) -> None:
    service(Name=name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a.b", "a b", "x" * 64, "ä", "a/b", "a\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ShoalError, match="name"):
        service(Name=name)


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.27",
        "a/b",
        "host:5000/a/b:t",
        "localhost/x",
        "a@sha256:" + "0" * 64,
        "[::1]:5000/a",
        "a__b",
    ],
)
def test_good_images(image: str) -> None:
    service({"Image": image})


@pytest.mark.parametrize(
    "image", ["", "Nginx", "a b", "a:", "a@sha256:12", "http://a/b", "a:-t", "-a", "a/", "a" * 2000]
)
def test_bad_images(image: str) -> None:
    with pytest.raises(ShoalError, match="ContainerSpec"):
        service({"Image": image})


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b"}] * 2}, "duplicate mount point: /b"),
        ({"Mounts": [{"Type": "bind", "Source": "a", "Target": "/b"}]}, "must be an absolute path"),
        ({"Mounts": [{"Type": "volume", "Target": ""}]}, "Target must not be empty"),
        ({"Mounts": [{"Type": "npipe", "Target": "/a"}]}, "npipe are for Windows"),
        ({"Mounts": [{"Type": "tmpfs", "Source": "x", "Target": "/a"}]}, "Source must not be specified"),
        ({"Env": ["=x"]}, "invalid environment variable"),
        ({"Env": ["A=\0"]}, "NUL"),
        ({"OomScoreAdj": 1001}, "range for oom score adj"),
        ({"StopGracePeriod": -1}, "must not be negative"),
        ({"Healthcheck": {"Test": ["RUN", "x"]}}, "Unknown type .RUN. in healthcheck"),
        ({"Secrets": [{}]}, "malformed secret reference"),
    ],
)
def test_bad_containers(container: dict[str, Any], message: str) -> None:
    with pytest.raises(ShoalError, match=message) as refusal:
        service(container)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"Resources": {"Limits": {"MemoryBytes": 1024}}}, "Must be at least 4MiB"),
        ({"Resources": {"Reservations": {"NanoCPUs": 1}}}, "Must be at least 0.001"),
        ({"Resources": {"Limits": {"NanoCPUs": -1}}}, "negative"),
        ({"RestartPolicy": {"Condition": "sometimes"}}, "invalid RestartCondition"),
        ({"RestartPolicy": {"Delay": -1}}, "negative"),
        ({"Placement": {"Constraints": ["node.role=manager"]}}, "expected one operator from ==, !="),
        ({"ContainerSpec": None}, "missing runtime"),
        ({"Networks": [{}]}, "target network"),
    ],
)
def test_bad_templates(template: dict[str, Any], message: str) -> None:
    with pytest.raises(ShoalError, match=message):
        service(template=template)


def test_generic_resources_are_asked_for_by_number_or_name() -> None:
    named = {"NamedResourceSpec": {"Kind": "gpu", "Value": "one"}}
    number = {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}
    for resource in (named, number):
        service(template={"Resources": {"Reservations": {"GenericResources": [resource]}}})
    for bad in ({}, {"DiscreteResourceSpec": {"Value": 2}}):
        with pytest.raises(ShoalError, match="its kind must be given"):
            service(template={"Resources": {"Reservations": {"GenericResources": [bad]}}})


def test_plugins_are_not_served() -> None:
    with pytest.raises(NotImplementedHere):
        service(template={"Runtime": "plugin"})


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ({"Mode": {"Replicated": {}, "Global": {}}}, "must specify only one service mode"),
        ({"Mode": {"Replicated": {"Replicas": -1}}}, "negative"),
        ({"Mode": {"ReplicatedJob": {"MaxConcurrent": -1}}}, "negative"),
        ({"Mode": {"ReplicatedJob": {"TotalCompletions": 100001}}}, "at most 100000"),
        ({"Mode": {"ReplicatedJob": {}}, "UpdateConfig": {}}, "Jobs may not have an update config"),
        ({"Mode": {"GlobalJob": {}}, "RollbackConfig": {}}, "Jobs may not have a rollback config"),
        ({"Mode": {"Replicated": {"Replicas": 10**9}}}, "at most 100000"),
        ({"UpdateConfig": {"MaxFailureRatio": 1.5}}, "update-maxfailureratio"),
        ({"UpdateConfig": {"Order": "any"}}, "unrecognized update order"),
        ({"RollbackConfig": {"FailureAction": "rollback"}}, "unrecognized rollback failure action"),
        ({"EndpointSpec": {"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}}, "can't be used with dnsrr mode"),
        (
            {"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 81}] * 2}},
            "duplicate published ports",
        ),
        ({"EndpointSpec": {"Ports": [{"TargetPort": 0}]}}, "invalid port"),
        ({"EndpointSpec": {"Ports": [{"TargetPort": 80, "Protocol": "icmp"}]}}, "invalid protocol"),
        ({"EndpointSpec": {"Mode": "lb"}}, "invalid resolution mode"),
    ],
)
def test_bad_services(top: dict[str, Any], message: str) -> None:
    with pytest.raises(ShoalError, match=message):
        service(**top)


def test_the_same_port_over_tcp_and_udp_is_fine() -> None:
    ports = [{"TargetPort": 53, "PublishedPort": 53, "Protocol": protocol} for protocol in ("tcp", "udp")]
    service(EndpointSpec={"Ports": ports})


@pytest.mark.parametrize(
    "good", ["node.role==manager", "node.labels.zone != a b", " engine.labels.os == Debian"]
)
def test_good_constraints(good: str) -> None:
    check_constraints([good])


@pytest.mark.parametrize("bad", ["", "a", "==b", "node.role==", "no de==x", "node.id==a;b"])
def test_bad_constraints(bad: str) -> None:
    with pytest.raises(ShoalError):
        check_constraints([bad])


def test_no_pattern_can_be_made_slow() -> None:
    begun = time.process_time()
    for text in ("a" * 50_000 + "!", "a_" * 25_000 + "!", " " * 50_000, "-" * 50_000, "a.__" * 12_000):
        for attempt in (
            lambda text=text: service(Name=text),
            lambda text=text: service({"Image": text[:1000] + "!"}),
            lambda text=text: check_constraints([text, text + "==" + text]),
            lambda text=text: check_network(NetworkSpec(name=text)),
        ):
            with pytest.raises(ShoalError):
                attempt()
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"Name": "host"}, 403),
        ({"Name": ""}, 400),
        ({"Name": "a", "Driver": "nosuch"}, 404),
        ({"Name": "a", "Driver": "macvlan", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}}, 400),
        ({"Name": "a", "Driver": "macvlan", "ConfigFrom": {"Network": "c"}, "Options": {"parent": "x"}}, 403),
        ({"Name": "a", "Driver": "ipvlan", "EnableIPv6": True}, 400),
        ({"Name": "a", "Driver": "bridge", "Ingress": True}, 400),
        ({"Name": "a", "Driver": "macvlan", "ConfigOnly": True}, 403),
        ({"Name": "a", "ConfigFrom": {"Network": "c"}}, 400),
        ({"Name": "a", "Options": {"encrypted": "perhaps"}}, 400),
        ({"Name": "a", "Labels": {"shoal.encryption.rotation": "10s"}}, 400),
        ({"Name": "a", "Ingress": True, "Attachable": True}, 400),
        ({"Name": "a", "Options": {"com.docker.network.driver.mtu": "67"}}, 400),
        ({"Name": "a", "Options": {"com.docker.network.driver.mtu": "big"}}, 400),
        ({"Name": "a", "Options": {"com.docker.network.driver.mtu": "65536"}}, 400),
        ({"Name": "a", "Options": {"com.docker.network.driver.mtu": "9" * 5000}}, 400),
        ({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.0.0.0/255.255.255.0"}]}}, 400),
        ({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "IPRange": "10.0.0.0/0.0.0.7"}]}}, 400),
        (
            {
                "Name": "a",
                "EnableIPv6": True,
                "IPAM": {"Config": [{"Subnet": "fd00::/64", "Gateway": "fd00::1%x }\nflush ruleset\n#"}]},
            },
            400,
        ),
        ({"Name": "a", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00::%x/64"}]}}, 400),
        ({"Name": "a", "IPAM": {"Driver": "custom"}}, 501),
        ({"Name": "a", "IPAM": {"Config": [{"Gateway": "1.2.3.4"}]}}, 400),
        ({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "IPRange": "10.1.0.0/25"}]}}, 400),
    ],
)
def test_bad_networks(spec: dict[str, Any], status: int) -> None:
    with pytest.raises(ShoalError) as refusal:
        check_network(msgspec.convert(spec, NetworkSpec))
    assert refusal.value.status == status


def _network(*subnets: str | dict[str, Any], ipv6: bool = True, **more: Any) -> NetworkSpec:
    configs = [each if isinstance(each, dict) else {"Subnet": each} for each in subnets]
    return msgspec.convert(
        {"Name": "a", "EnableIPv6": ipv6, "IPAM": {"Config": configs}, **more}, NetworkSpec
    )


@pytest.mark.parametrize(
    "spec",
    [
        _network(),
        _network("fd00:1::/64"),
        _network("10.1.0.0/24", "10.2.0.0/24", "fd00:1::/96"),
        _network("10.1.0.0/24", "fd00:1::/64", Ingress=True),
        _network({"Subnet": "fd00:1::/64", "Gateway": "fd00:1::9", "AuxiliaryAddresses": {"x": "fd00:1::a"}}),
        _network(Options={"com.docker.network.driver.mtu": "1280"}),
        _network("10.1.0.0/24", ipv6=False, Options={"com.docker.network.driver.mtu": "1000"}),
    ],
)
def test_networks_with_ipv6(spec: NetworkSpec) -> None:
    check_network(spec)


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        (_network("fd00:1::/97"), 400, "a /96 or larger"),
        (_network("fd00:1::/64", "fd00:2::/64"), 400, "has one IPv6 subnet, not fd00:1::/64, fd00:2::/64"),
        (_network("fd00:1::/64", "fd00:1::/80"), 403, "Pool overlaps"),
        (_network("fd00:1::/64", ipv6=False), 400, "create it with --ipv6"),
        (_network({"Subnet": "10.0.0.0/24", "Gateway": "fd00::1"}), 400, "IPv4 block"),
        (_network({"Subnet": "fd00:1::/64", "Gateway": "10.0.0.1"}), 400, "IPv6 block"),
        (_network({"Subnet": "fd00:1::/64", "IPRange": "fd00:1::/80"}), 400, "range of the IPv4 subnet"),
        (_network("fd00:1::1/64"), 400, "it should be fd00:1::/64"),
        (_network("fe80::/64"), 400, "link-local"),
        (_network("ff02::/64"), 400, "can't have these addresses"),
        (_network("10.1.0.0/24", "10.2.0.0/24", Ingress=True), 400, "one subnet"),
        (_network(Options={"com.docker.network.driver.mtu": "1279"}), 400, "1280 or more"),
        (_network(EnableIPv4=False), 501, "leave EnableIPv4 out"),
    ],
)
def test_bad_networks_with_ipv6(spec: NetworkSpec, status: int, words: str) -> None:
    with pytest.raises(ShoalError, match=re.escape(words)) as refusal:
        check_network(spec)
    assert refusal.value.status == status


def test_subnets_of_other_networks_are_refused() -> None:
    taken = Network(
        id="n",
        spec=_network("10.1.0.0/16", "fd00:1::/64"),
        subnets=(Subnet(subnet="10.1.0.0/16"),),
        subnets6=(Subnet(subnet="fd00:1::/64"),),
    )
    for subnet in ("10.1.2.0/24", "fd00:1::/96", "fd00::/16"):
        with pytest.raises(Forbidden, match="Pool overlaps with other one"):
            check_subnets_free(_network(subnet), [taken])
    check_subnets_free(_network("10.2.0.0/16", "fd00:2::/64"), [taken])


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"Name": "other"}, 400),
        ({"CAConfig": {"NodeCertExpiry": 1}}, 400),
        ({"Dispatcher": {"HeartbeatPeriod": -1}}, 400),
    ],
)
def test_bad_settings(spec: dict[str, Any], status: int) -> None:
    with pytest.raises(ShoalError) as refusal:
        check_cluster(msgspec.convert(spec, ClusterSpec))
    assert refusal.value.status == status
