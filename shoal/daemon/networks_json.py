"""This node's networks, and its part of the cluster's, in the Engine API's JSON."""

from collections.abc import Mapping
from typing import Any

from cluster.dataplane import NetworkRecord
from cluster.engine_json import rfc3339
from cluster.errors import NotFound
from cluster.network_details import endpoint_id, services_json
from cluster.spec import IPAM, IPAMConfig
from netplane.drivers import DRIVERS
from netplane.errors import NetworkError
from netplane.model import LocalNetwork
from worker.engine import Engine


def network_json(network: LocalNetwork) -> dict[str, Any]:
    """A local network, without its containers."""
    spec = network.spec
    ipam = spec.ipam or IPAM()
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_at),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": spec.enable_ipv4 is not False,
        "EnableIPv6": bool(network.subnet6) or (spec.config_only and spec.enable_ipv6),
        "IPAM": {
            "Driver": ipam.driver or "default",
            "Options": ipam.options or None,
            "Config": _subnets(network, ipam),
        },
        "Internal": network.internal,
        "Attachable": spec.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": spec.config_from.network if spec.config_from else ""},
        "ConfigOnly": spec.config_only,
        "Containers": {},
        "Options": dict(DRIVERS[network.driver].describe(network)),
        "Labels": dict(spec.labels or {}),
    }


def record_json(record: NetworkRecord) -> dict[str, Any]:
    """A network of the cluster's as a node that has no manager knows it."""
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": "0001-01-01T00:00:00Z",
        "Scope": "swarm",
        "Driver": record.driver,
        "EnableIPv4": True,
        "EnableIPv6": bool(record.subnets6),
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [
                {"Subnet": each.subnet, "Gateway": each.gateway}
                for each in (*record.subnets, *record.subnets6)
            ],
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": record.ingress,
        "ConfigFrom": {"Network": record.config_from},
        "ConfigOnly": False,
        "Containers": {},
        "Options": dict(record.options),
        "Labels": dict(record.labels),
    }


def containers_json(engine: Engine, network_id: str) -> dict[str, Any]:
    """The containers of this node that run in a network, by id."""
    found: dict[str, Any] = {}
    sandboxes: Mapping[str, Any] = engine.network.sandboxes()
    for id, address in engine.network.residents(network_id).items():
        try:
            name = engine.runtime.get(id)[0].name
        except NotFound:  # it is being made, or taken down
            continue
        found[id] = {
            "Name": name,
            "EndpointID": endpoint_id(id, network_id),
            "MacAddress": sandboxes[id].macs.get(network_id, ""),
            "IPv4Address": address,
            "IPv6Address": sandboxes[id].addresses6.get(network_id, ""),
        }
    return found


async def details_json(engine: Engine, network_id: str, *, verbose: bool) -> dict[str, Any]:
    """What this node itself knows of a network beside its settings: of a cluster network its nodes and, if
    `verbose`, its services; of every network, if `verbose`, what packets were dropped here."""
    known = engine.network.known(network_id)
    found: dict[str, Any] = {}
    if known is not None and known.peers:
        found["Peers"] = [
            {"Name": node_id, "IP": address} for node_id, address in sorted(known.peers.items())
        ]
    if known is not None and verbose:
        tasks = {sandbox.task_id: id for id, sandbox in engine.network.specs().items() if sandbox.task_id}
        found["Services"] = services_json(
            known.services,
            known.endpoints,
            lambda node_id: known.addresses.get(node_id, ""),
            lambda task_id: tasks.get(task_id, ""),
        )
    if verbose:
        found["Dropped"] = await dropped_json(engine, network_id)
    return found


async def dropped_json(engine: Engine, network_id: str) -> dict[str, int]:
    """Packets of a network that this node dropped, by what was wrong; empty if that can't be read."""
    try:
        drops = (await engine.network.drops())[0].get(network_id)
    except NetworkError:  # somebody just flushed the rules, and with them the counters
        return {}
    if drops is None:
        return {}
    return {"Isolated": drops.isolated, "ToHost": drops.to_host, "Spoofed": drops.spoofed}


def _subnets(network: LocalNetwork, ipam: IPAM) -> list[dict[str, Any]] | None:
    if not (network.subnet or network.subnet6 or network.spec.config_only):
        return None
    asked = [config for config in ipam.config or () if config.subnet]
    if network.spec.config_only:
        return [_subnet(config, config.subnet, config.gateway) for config in asked]
    found = []
    for subnet, gateway in ((network.subnet, network.gateway), (network.subnet6, network.gateway6)):
        if subnet:
            config = next((each for each in asked if _same(each.subnet, subnet)), IPAMConfig())
            found.append(_subnet(config, config.subnet or subnet, config.gateway or gateway))
    return found


def _same(text: str, subnet: str) -> bool:
    return (":" in text) == (":" in subnet)


def _subnet(config: IPAMConfig, subnet: str, gateway: str) -> dict[str, Any]:
    found: dict[str, Any] = {"Subnet": subnet}
    if config.ip_range:
        found["IPRange"] = config.ip_range
    if gateway:
        found["Gateway"] = gateway
    if config.auxiliary_addresses:
        found["AuxiliaryAddresses"] = dict(config.auxiliary_addresses)
    return found
