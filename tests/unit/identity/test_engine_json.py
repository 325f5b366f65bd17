"""The Engine's JSON: keys that dockerd always writes, Go's times, and what is left out."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.defaults import stored_service
from cluster.engine_json import (
    cluster_json,
    config_json,
    network_json,
    node_json,
    rfc3339,
    secret_json,
    service_json,
    spec_json,
    task_json,
)
from cluster.objects import (
    Cluster,
    Config,
    ContainerStatus,
    Endpoint,
    ManagerStatus,
    Network,
    NetworkAttachment,
    Node,
    Secret,
    Service,
    Subnet,
    Task,
    TaskStatus,
    UpdateStatus,
    VirtualIP,
)
from cluster.spec import ConfigSpec, EndpointSpec, NetworkSpec, PortConfig, SecretSpec, ServiceSpec
from cluster.states import Role, TaskState, UpdateState

# What a dockerd 28 wrote in every one of some hundred recorded answers: key → JSON type.
ALWAYS = {
    "service": {
        "ID": str,
        "Version.Index": int,
        "CreatedAt": str,
        "UpdatedAt": str,
        "Spec.Name": str,
        "Spec.Labels": dict,
        "Spec.Mode": dict,
        "Spec.TaskTemplate.ContainerSpec.Image": str,
        "Spec.TaskTemplate.ContainerSpec.Isolation": str,
        "Spec.TaskTemplate.ForceUpdate": int,
        "Spec.TaskTemplate.Runtime": str,
        "Endpoint": dict,
    },
    "task": {
        "ID": str,
        "Version.Index": int,
        "CreatedAt": str,
        "UpdatedAt": str,
        "Labels": dict,
        "Spec.ContainerSpec.Image": str,
        "Spec.ForceUpdate": int,
        "ServiceID": str,
        "Status.Timestamp": str,
        "Status.State": str,
        "Status.Message": str,
        "Status.PortStatus": dict,
        "DesiredState": str,
        "Volumes": type(None),
    },
    "node": {
        "ID": str,
        "Version.Index": int,
        "Spec.Labels": dict,
        "Spec.Role": str,
        "Spec.Availability": str,
        "Description.Hostname": str,
        "Description.Platform.Architecture": str,
        "Description.Resources.NanoCPUs": int,
        "Description.Resources.MemoryBytes": int,
        "Description.Engine.EngineVersion": str,
        "Description.TLSInfo.TrustRoot": str,
        "Description.TLSInfo.CertIssuerSubject": str,
        "Status.State": str,
        "Status.Addr": str,
        "ManagerStatus.Leader": bool,
        "ManagerStatus.Reachability": str,
        "ManagerStatus.Addr": str,
    },
    "network": {
        "Name": str,
        "Id": str,
        "Created": str,
        "Scope": str,
        "Driver": str,
        "EnableIPv4": bool,
        "EnableIPv6": bool,
        "IPAM.Driver": str,
        "IPAM.Options": type(None),
        "IPAM.Config": list,
        "Internal": bool,
        "Attachable": bool,
        "Ingress": bool,
        "ConfigFrom.Network": str,
        "ConfigOnly": bool,
        "Containers": dict,
        "Options": dict,
        "Labels": dict,
    },
    "swarm": {
        "ID": str,
        "Version.Index": int,
        "CreatedAt": str,
        "DataPathPort": int,
        "DefaultAddrPool": list,
        "JoinTokens.Manager": str,
        "JoinTokens.Worker": str,
        "RootRotationInProgress": bool,
        "Spec.CAConfig.NodeCertExpiry": int,
        "Spec.Dispatcher": dict,
        "Spec.EncryptionConfig.AutoLockManagers": bool,
        "Spec.Labels": dict,
        "Spec.Name": str,
        "Spec.Orchestration.TaskHistoryRetentionLimit": int,
        "Spec.Raft.KeepOldSnapshots": int,
        "Spec.Raft.SnapshotInterval": int,
        "Spec.Raft.ElectionTick": int,
        "Spec.TaskDefaults": dict,
        "SubnetSize": int,
        "TLSInfo.TrustRoot": str,
        "UpdatedAt": str,
    },
}

SPEC = stored_service(
    msgspec.json.decode(
        b'{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"nginx"}},"Mode":{"Replicated":{}}}',
        type=ServiceSpec,
    )
)
SAMPLES = {
    "service": service_json(Service(id="s", spec=SPEC), lambda _: None),
    "task": task_json(Task(id="t", service_id="s", spec=SPEC.task_template), lambda id: None),
    "node": node_json(
        Node(id="n", role=Role.MANAGER, manager_status=ManagerStatus(address="a:1")), leader=True
    ),
    "network": network_json(Network(id="x", spec=NetworkSpec(name="front"))),
    "swarm": cluster_json(Cluster(id="c"), issuer=(b"", b"")),
}


@pytest.mark.parametrize("kind", ALWAYS)
def test_what_dockerd_always_writes_is_there(kind: str) -> None:
    for path, expected in ALWAYS[kind].items():
        value = SAMPLES[kind]
        for key in path.split("."):
            assert key in value, path
            value = value[key]
        assert type(value) is expected, path


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
        (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"),
    ],
)
def test_times_are_gos(nanoseconds: int, text: str) -> None:
    assert rfc3339(nanoseconds) == text


@given(st.builds(PortConfig, target_port=st.integers(1, 65535), published_port=st.integers(0, 65535)))
def test_a_specs_json_reads_back_as_the_same_spec(port: PortConfig) -> None:
    spec = msgspec.structs.replace(SPEC, endpoint_spec=EndpointSpec(mode="vip", ports=[port]))
    again = msgspec.convert(spec_json(spec), ServiceSpec)
    assert again.endpoint_spec == spec.endpoint_spec
    assert spec_json(again) == spec_json(spec)


def test_a_port_says_its_protocol_and_mode() -> None:
    spec = EndpointSpec(mode="vip", ports=[PortConfig(target_port=80)])
    assert spec_json(spec)["Ports"] == [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]


def test_addresses_carry_their_prefix() -> None:
    endpoint = Endpoint(
        spec=EndpointSpec(mode="vip"), virtual_ips=(VirtualIP(network_id="n", address="10.0.1.2/24"),)
    )
    shown = service_json(Service(id="s", spec=SPEC, endpoint=endpoint), lambda _: None)["Endpoint"]
    assert shown == {"Spec": {"Mode": "vip"}, "VirtualIPs": [{"NetworkID": "n", "Addr": "10.0.1.2/24"}]}


def test_ipv6_addresses_follow_those_of_ipv4() -> None:
    """The first of several is IPv4, as always: many a client takes that one alone."""
    network = Network(
        id="n",
        spec=NetworkSpec(name="front", enable_ipv6=True),
        subnets=(Subnet(subnet="10.0.1.0/24", gateway="10.0.1.1"),),
        subnets6=(Subnet(subnet="fd00:1:2:3::/64", gateway="fd00:1:2:3::1"),),
    )
    endpoint = Endpoint(
        virtual_ips=(
            VirtualIP(network_id="o", address="10.0.0.2/24"),
            VirtualIP(network_id="n", address="10.0.1.2/24"),
        )
    )
    shown = service_json(Service(id="s", spec=SPEC, endpoint=endpoint), {"n": network}.get)["Endpoint"]
    assert shown["VirtualIPs"] == [
        {"NetworkID": "o", "Addr": "10.0.0.2/24"},
        {"NetworkID": "n", "Addr": "10.0.1.2/24"},
        {"NetworkID": "n", "Addr": "fd00:1:2:3::a00:102/64"},
    ]
    task = Task(id="t", networks=(NetworkAttachment(network_id="n", addresses=("10.0.1.9/24",)),))
    attached = task_json(task, {"n": network}.get)["NetworksAttachments"][0]
    assert attached["Addresses"] == ["10.0.1.9/24", "fd00:1:2:3::a00:109/64"]
    assert attached["Network"]["Spec"]["IPv6Enabled"] is True
    inspected = network_json(network)
    assert inspected["EnableIPv6"] is True
    assert inspected["IPAM"]["Config"] == [
        {"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"},
        {"Subnet": "fd00:1:2:3::/64", "Gateway": "fd00:1:2:3::1"},
    ]


def test_a_task_shows_its_container_networks_and_error() -> None:
    network = Network(
        id="n", spec=NetworkSpec(name="front"), subnets=(Subnet(subnet="10.0.1.0/24"),), vni=4097
    )
    status = TaskStatus(
        state=TaskState.FAILED, error="boom", container=ContainerStatus(container_id="c", pid=1, exit_code=3)
    )
    attachment = NetworkAttachment(network_id="n", addresses=("10.0.1.5/24",))
    task = Task(id="t", slot=2, status=status, networks=(attachment,), desired_state=TaskState.SHUTDOWN)
    shown = task_json(task, lambda id: network)
    assert shown["Status"]["Err"] == "boom"
    assert shown["Status"]["ContainerStatus"] == {"ContainerID": "c", "PID": 1, "ExitCode": 3}
    (attached,) = shown["NetworksAttachments"]
    assert attached["Addresses"] == ["10.0.1.5/24"]
    assert attached["Network"]["Spec"]["Name"] == "front"
    assert (shown["Slot"], shown["DesiredState"]) == (2, "shutdown")


def test_an_update_in_progress_has_no_end() -> None:
    status = UpdateStatus(state=UpdateState.UPDATING, started_at=1_700_000_000_000_000_000, message="m")
    shown = service_json(Service(id="s", spec=SPEC, update_status=status), lambda _: None)["UpdateStatus"]
    assert shown == {"State": "updating", "StartedAt": "2023-11-14T22:13:20Z", "Message": "m"}


def test_a_secrets_data_never_leaves() -> None:
    assert "Data" not in secret_json(Secret(id="s", spec=SecretSpec(name="a", data="eA==")))["Spec"]
    assert config_json(Config(id="c", spec=ConfigSpec(name="a", data="eA==")))["Spec"]["Data"] == "eA=="


def test_leaders_only_are_leaders() -> None:
    node = Node(id="n", role=Role.MANAGER, manager_status=ManagerStatus(address="a:1"))
    assert "Leader" not in node_json(node)["ManagerStatus"]
    worker = msgspec.structs.replace(node, role=Role.WORKER)
    assert "ManagerStatus" not in node_json(worker)
