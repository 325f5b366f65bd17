"""The Engine API's JSON of the cluster's objects: pure functions from objects to plain data.

dockerd marshals Go structs, so a key is either always there or left out when empty. Specs follow a table of
the keys that Go never omits; the objects around them are written out by hand.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any

import msgspec

from cluster import spec as s
from cluster.dataplane import EndpointRecord, address6_for
from cluster.defaults import stored_cluster, with_defaults
from cluster.objects import (
    Cluster,
    Config,
    Endpoint,
    Network,
    NetworkAttachment,
    Node,
    RootCA,
    Secret,
    Service,
    StoreObject,
    Task,
    TaskStatus,
)
from cluster.root_ca import split
from cluster.seams import SECOND
from cluster.spec.base import UNKNOWN_FIELDS
from cluster.states import Role

Json = dict[str, Any]
NetworkOf = Callable[[str], Network | None]

_ALWAYS: dict[type, dict[str, Any]] = {
    s.ContainerSpec: {"Image": "", "Isolation": "default"},
    s.TaskSpec: {"ForceUpdate": 0, "Runtime": "container"},
    s.ServiceSpec: {"Name": "", "Labels": {}, "TaskTemplate": {}, "Mode": {}},
    s.UpdateConfig: {
        "Parallelism": 0,
        "FailureAction": "pause",
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    },
    s.RestartPolicy: {"Condition": "any", "MaxAttempts": 0},
    s.PortConfig: {"Protocol": "tcp", "TargetPort": 0, "PublishMode": "ingress"},
    s.EndpointSpec: {"Mode": "vip"},
    s.FileTarget: {"Name": "", "UID": "0", "GID": "0", "Mode": 0},
    s.SecretReference: {"File": None, "SecretID": "", "SecretName": ""},
    s.ConfigReference: {"ConfigID": "", "ConfigName": ""},
    s.Privileges: {"CredentialSpec": None, "SELinuxContext": None, "NoNewPrivileges": False},
    s.SELinuxContext: {"Disable": False, "User": "", "Role": "", "Type": "", "Level": ""},
    s.Ulimit: {"Name": "", "Hard": 0, "Soft": 0},
    s.NamedResource: {"Kind": "", "Value": ""},
    s.DiscreteResource: {"Kind": "", "Value": 0},
    s.SpreadOver: {"SpreadDescriptor": ""},
    s.NodeSpec: {"Labels": {}, "Role": "worker", "Availability": "active"},
    s.SecretSpec: {"Name": "", "Labels": {}},
    s.ConfigSpec: {"Name": "", "Labels": {}},
    s.ClusterSpec: {
        "Name": "default",
        "Labels": {},
        "Orchestration": {},
        "Raft": {},
        "Dispatcher": {},
        "CAConfig": {},
        "TaskDefaults": {},
        "EncryptionConfig": {},
    },
    s.RaftConfig: {
        "SnapshotInterval": 10_000,
        "KeepOldSnapshots": 0,
        "LogEntriesForSlowFollowers": 500,
        "ElectionTick": 10,
        "HeartbeatTick": 1,
    },
    s.OrchestrationConfig: {"TaskHistoryRetentionLimit": 5},
    s.EncryptionConfig: {"AutoLockManagers": False},
}


def rfc3339(nanoseconds: int) -> str:
    """Go's RFC3339Nano in UTC: fraction without trailing zeros; 0 is Go's zero time."""
    if nanoseconds == 0:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(nanoseconds, SECOND)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return text + (f".{fraction:09d}".rstrip("0") if fraction else "") + "Z"


def log_time(nanoseconds: int) -> str:
    """The time of a log line: all nine digits, so that columns line up."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    return f"{rfc3339(seconds * SECOND)[:-1]}.{fraction:09d}Z"


@cache
def _fields(cls: type[msgspec.Struct]) -> list[tuple[str, str, Any]]:
    fields = [field for field in msgspec.structs.fields(cls) if field.encode_name != UNKNOWN_FIELDS]
    return [
        (f.name, f.encode_name, f.default if f.default_factory is msgspec.NODEFAULT else f.default_factory())
        for f in fields
    ]


def spec_json(value: Any) -> Any:
    """A spec in Engine JSON: empty values left out, except the keys that dockerd always writes."""
    if isinstance(value, msgspec.Struct):
        result: Json = dict(_ALWAYS.get(type(value), ()))
        for name, key, default in _fields(type(value)):
            field = getattr(value, name)
            given = field is not None and field != default
            if given or (key in result and field not in (None, "", {}, [])):
                result[key] = spec_json(field)
        return result
    if isinstance(value, list | tuple):
        return [spec_json(item) for item in value]
    if isinstance(value, dict):
        return dict(value)
    return value.value if isinstance(value, StrEnum) else value


def _meta(value: StoreObject) -> Json:
    return {
        "ID": value.id,
        "Version": {"Index": value.version},
        "CreatedAt": rfc3339(value.created_at),
        "UpdatedAt": rfc3339(value.updated_at),
    }


# --- services and tasks ---------------------------------------------------------------------------------


def service_json(
    service: Service,
    network: NetworkOf,
    *,
    insert_defaults: bool = False,
    status: tuple[int, int, int] | None = None,
) -> Json:
    """GET /services/{id}; `network` looks a network up by id. `status`: running, desired and completed tasks,
    as `status=true` asks."""
    result = _meta(service)
    result["Spec"] = spec_json(with_defaults(service.spec) if insert_defaults else service.spec)
    if service.previous_spec is not None:
        previous = service.previous_spec
        result["PreviousSpec"] = spec_json(with_defaults(previous) if insert_defaults else previous)
    result["Endpoint"] = endpoint_json(service.endpoint, network)
    if (update := service.update_status) is not None:
        result["UpdateStatus"] = {"State": update.state.value, "StartedAt": rfc3339(update.started_at)}
        if update.completed_at:
            result["UpdateStatus"]["CompletedAt"] = rfc3339(update.completed_at)
        result["UpdateStatus"]["Message"] = update.message
    if (job := service.job_status) is not None:
        result["JobStatus"] = {
            "JobIteration": {"Index": job.job_iteration},
            "LastExecution": rfc3339(job.last_execution),
        }
    if status is not None:
        running, desired, completed = status
        result["ServiceStatus"] = {
            "RunningTasks": running,
            "DesiredTasks": desired,
            "CompletedTasks": completed,
        }
    return result


def endpoint_json(endpoint: Endpoint | None, network: NetworkOf) -> Json:
    """A service's Endpoint; before allocation only an empty Spec. IPv6 addresses come after all others."""
    if endpoint is None:
        return {"Spec": {}}
    result: Json = {"Spec": spec_json(endpoint.spec) if endpoint.spec != s.EndpointSpec() else {}}
    if endpoint.ports:
        result["Ports"] = spec_json(endpoint.ports)
    if addresses := [vip for vip in endpoint.virtual_ips if vip.address]:  # dnsrr has networks without one
        shown = [(vip.network_id, vip.address) for vip in addresses]
        shown += [
            (vip.network_id, six) for vip in addresses for six in _six(network(vip.network_id), vip.address)
        ]
        result["VirtualIPs"] = [{"NetworkID": id, "Addr": address} for id, address in shown]
    return result


def _six(network: Network | None, address: str) -> tuple[str, ...]:
    """The IPv6 address that goes with an address in the network, if it has IPv6 as somebody asked for it.

    The ingress network has it unasked: Prometheus takes each address that it finds for a target of its own.
    """
    if network is None or network.spec.ingress or not network.subnets6:
        return ()
    return (address6_for(network.subnets6[0].subnet, address),)


def tasks_json(tasks: Iterable[Task], network: NetworkOf) -> list[Json]:
    """GET /tasks. Most tasks of a service have the same spec and networks: those are written once."""
    specs: dict[tuple[str, int], tuple[s.TaskSpec, Json]] = {}
    networks: dict[str, tuple[Network | None, Json]] = {}

    def described(id: str) -> tuple[Network | None, Json]:
        if id not in networks:
            found = network(id)
            networks[id] = found, _attached_network_json(id, found)
        return networks[id]

    result = []
    for task in tasks:
        key = (task.service_id, task.spec_version)
        known = specs.get(key)
        if known is None or known[0] != task.spec:
            known = specs[key] = (task.spec, spec_json(task.spec))
        result.append(_task_json(task, known[1], described))
    return result


def task_json(task: Task, network: NetworkOf) -> Json:
    """GET /tasks/{id}; `network` looks a network up by id."""
    return tasks_json((task,), network)[0]


def _task_json(task: Task, spec: Json, network: Callable[[str], tuple[Network | None, Json]]) -> Json:
    result = _meta(task)
    result["Labels"] = {}
    result["Spec"] = spec
    result["ServiceID"] = task.service_id
    if task.shown_slot:
        result["Slot"] = task.shown_slot
    if task.node_id:
        result["NodeID"] = task.node_id
    result["Status"] = task_status_json(task.status)
    result["DesiredState"] = task.desired_state.word
    if task.networks:
        of_node = task.status.container.addresses if task.status.container is not None else {}
        result["NetworksAttachments"] = [
            _attachment_json(a, *network(a.network_id), of_node.get(a.network_id, ())) for a in task.networks
        ]
    if task.generic_resources:
        result["GenericResources"] = spec_json(task.generic_resources)
    if task.job_iteration is not None:
        result["JobIteration"] = {"Index": task.job_iteration}
    result["Volumes"] = None
    return result


def task_status_json(status: TaskStatus) -> Json:
    """A task's Status."""
    result: Json = {
        "Timestamp": rfc3339(status.timestamp),
        "State": status.state.word,
        "Message": status.message,
    }
    if status.error:
        result["Err"] = status.error
    if (container := status.container) is not None:
        result["ContainerStatus"] = {
            "ContainerID": container.container_id,
            "PID": container.pid,
            "ExitCode": container.exit_code,
        }
    result["PortStatus"] = {"Ports": spec_json(status.ports)} if status.ports else {}
    return result


def _attached_network_json(id: str, network: Network | None) -> Json:
    return swarm_network_json(network) if network else {"ID": id}


def _attachment_json(
    attachment: NetworkAttachment, network: Network | None, shown: Json, of_node: Sequence[str]
) -> Json:
    result: Json = {"Network": shown}
    if attachment.addresses:
        six = [each for address in attachment.addresses for each in _six(network, address)]
        result["Addresses"] = [*attachment.addresses, *six]
    elif of_node:
        result["Addresses"] = list(of_node)
    return result


# --- nodes ----------------------------------------------------------------------------------------------


def node_json(node: Node, *, leader: bool = False, reachability: str = "unknown") -> Json:
    """GET /nodes/{id}. Leadership and reachability (unknown, unreachable, reachable) come from Raft."""
    result = _meta(node)
    result["Spec"] = spec_json(node.spec)
    description = node.description
    engine: Json = {"EngineVersion": description.engine.version}
    if description.engine.labels:
        engine["Labels"] = dict(description.engine.labels)
    if description.engine.plugins:
        engine["Plugins"] = [{"Type": kind, "Name": name} for kind, name in description.engine.plugins]
    resources: Json = {
        "NanoCPUs": description.resources.nano_cpus,
        "MemoryBytes": description.resources.memory_bytes,
    }
    if description.resources.generic_resources:
        resources["GenericResources"] = spec_json(description.resources.generic_resources)
    result["Description"] = {
        "Hostname": description.hostname,
        "Platform": {
            "Architecture": description.platform.architecture,
            "OS": description.platform.os,
        },
        "Resources": resources,
        "Engine": engine,
        "TLSInfo": {
            "TrustRoot": next(iter(split(node.tls.trust_root)), ""),
            "CertIssuerSubject": b64encode(node.tls.issuer_subject).decode(),
            "CertIssuerPublicKey": b64encode(node.tls.issuer_public_key).decode(),
        },
    }
    result["Status"] = {"State": node.status.state.value, "Addr": node.status.address}
    if node.status.message:
        result["Status"]["Message"] = node.status.message
    if node.manager_status is not None and node.role is Role.MANAGER:
        result["ManagerStatus"] = {
            **({"Leader": True} if leader else {}),
            "Reachability": reachability,
            "Addr": node.manager_status.address,
        }
    return result


# --- networks -------------------------------------------------------------------------------------------


def network_json(network: Network, containers: Mapping[str, EndpointRecord] | None = None) -> Json:
    """GET /networks/{id} of a swarm-scoped network. `containers`: this node's endpoints by container id."""
    spec = network.spec
    ipam = spec.ipam or s.IPAM()
    options = dict(spec.options or {})
    if network.vni:
        options.setdefault("com.docker.network.driver.overlay.vxlanid_list", str(network.vni))
    return {
        "Name": spec.name,
        "Id": network.id,
        "Created": rfc3339(network.created_at),
        "Scope": "swarm",
        "Driver": network.driver,
        "EnableIPv4": spec.enable_ipv4 is not False,
        "EnableIPv6": spec.enable_ipv6,
        "IPAM": {
            "Driver": ipam.driver or "default",
            "Options": ipam.options or None,
            "Config": _subnets_json(network),
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": spec.config_from.network if spec.config_from else ""},
        "ConfigOnly": spec.config_only,
        "Containers": {
            container: {
                "Name": endpoint.task_name,
                "EndpointID": endpoint.task_id,
                "MacAddress": "",
                "IPv4Address": endpoint.address,
                "IPv6Address": "".join(_six(network, endpoint.address)),
            }
            for container, endpoint in (containers or {}).items()
        },
        "Options": options,
        "Labels": dict(spec.labels or {}),
    }


def _subnets_json(network: Network) -> list[Json]:
    if not network.subnets:
        return [spec_json(config) for config in (network.spec.ipam or s.IPAM()).config or ()]
    result = []
    for subnet in (*network.subnets, *network.subnets6):
        config: Json = {"Subnet": subnet.subnet, "Gateway": subnet.gateway}
        if subnet.ip_range:
            config["IPRange"] = subnet.ip_range
        if subnet.reserved:
            config["AuxiliaryAddresses"] = dict(subnet.reserved)
        result.append(config)
    return result


def swarm_network_json(network: Network) -> Json:
    """A network as a task's attachment shows it (SwarmKit's shape, not the Engine's)."""
    spec = network.spec
    described: Json = {"Name": spec.name, "Labels": dict(spec.labels or {}), "DriverConfiguration": {}}
    if network.driver:
        described["DriverConfiguration"]["Name"] = network.driver
    for key, flag in (
        ("IPv6Enabled", spec.enable_ipv6),
        ("Internal", spec.internal),
        ("Attachable", spec.attachable),
        ("Ingress", spec.ingress),
    ):
        if flag:
            described[key] = True
    subnets = [
        {"Subnet": subnet.subnet, "Gateway": subnet.gateway}
        for subnet in (*network.subnets, *network.subnets6)
    ]
    if spec.ipam and spec.ipam.config:
        described["IPAMOptions"] = {"Driver": {}, "Configs": [spec_json(c) for c in spec.ipam.config]}
    described["Scope"] = "swarm"
    state: Json = {"Name": network.driver}
    if network.vni:
        state["Options"] = {"com.docker.network.driver.overlay.vxlanid_list": str(network.vni)}
    result = _meta(network)
    result["Spec"] = described
    result["DriverState"] = state
    result["IPAMOptions"] = {"Driver": {"Name": "default"}, "Configs": subnets}
    return result


# --- secrets, configs, cluster --------------------------------------------------------------------------


def secret_json(secret: Secret) -> Json:
    """GET /secrets/{id}: never the data."""
    return {**_meta(secret), "Spec": spec_json(msgspec.structs.replace(secret.spec, data=""))}


def config_json(config: Config) -> Json:
    """GET /configs/{id}."""
    return {**_meta(config), "Spec": {"Data": "", **spec_json(config.spec)}}


def cluster_json(cluster: Cluster, *, issuer: tuple[bytes, bytes], tokens: bool = True) -> Json:
    """GET /swarm (with join tokens), or the Cluster of GET /info (without).

    `issuer`: subject and public key in DER of the root that signs at present.
    """
    spec = stored_cluster(cluster.spec)
    if spec.ca_config is not None:
        spec = msgspec.structs.replace(
            spec, ca_config=msgspec.structs.replace(spec.ca_config, signing_ca_key="")
        )
    result = _meta(cluster)
    result["Spec"] = spec_json(spec)
    result["TLSInfo"] = tls_info_json(cluster.root_ca, issuer)
    result["RootRotationInProgress"] = cluster.root_ca.rotation is not None
    result["DefaultAddrPool"] = list(cluster.default_address_pool)
    result["SubnetSize"] = cluster.subnet_size
    result["DataPathPort"] = cluster.data_path_port
    if tokens:
        join = cluster.root_ca.join_tokens
        result["JoinTokens"] = {"Worker": join.worker, "Manager": join.manager}
    return result


def tls_info_json(root_ca: RootCA, issuer: tuple[bytes, bytes]) -> Json:
    """The cluster's trust root; `issuer` is its subject and public key in DER."""
    return {
        "TrustRoot": root_ca.certificate.decode(),
        "CertIssuerSubject": b64encode(issuer[0]).decode(),
        "CertIssuerPublicKey": b64encode(issuer[1]).decode(),
    }
