"""What one node should run and know, and the difference to what it was told before.

Tasks, and only the secrets, configs and networks that those which have not ended use. A task is sent again
when something that the manager decides about it changed, never for what the node itself reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from cluster.dataplane import DataplaneChanges, EndpointRecord, NetworkRecord, PeerRecord, ServiceRecord
from cluster.messages import Assignments
from cluster.objects import Config, Node, Secret, Task
from cluster.states import TaskState
from manager.dispatcher.dataplane import DataplaneIndex, Delta
from manager.store import View

K = TypeVar("K")
R = TypeVar("R")


def decided(task: Task) -> tuple[object, ...]:
    """The part of a task that managers decide and agents obey."""
    return (
        task.desired_state,
        task.node_id,
        task.spec,
        task.networks,
        task.endpoint,
        task.service_id,
        task.service_name,
        task.service_labels,
        task.slot,
        task.generic_resources,
        task.registry_auth,
    )


def tasks_of_node(view: View, node_id: str, held: Mapping[str, Task]) -> dict[str, Task]:
    """The node's tasks by id, ended ones too (it keeps their logs); `held` ones as they were before."""
    return {
        task.id: held.get(task.id, task)
        for task in view.tasks_on_node(node_id)
        if task.status.state >= TaskState.ASSIGNED
    }


@dataclass
class Needs:
    """What a node's unfinished tasks use, by id."""

    secrets: set[str] = field(default_factory=set)
    configs: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)


def needs(tasks: Mapping[str, Task], ingress: frozenset[str]) -> Needs:
    """What these tasks use, and the ingress networks, which every node takes part in."""
    found = Needs(networks=set(ingress))
    for task in tasks.values():
        if task.status.state.terminal:
            continue
        found.networks.update(attachment.network_id for attachment in task.networks)
        container = task.spec.container_spec
        if container is not None:
            found.secrets.update(reference.secret_id for reference in container.secrets or ())
            found.configs.update(reference.config_id for reference in container.configs or ())
    return found


class Told:
    """What a node was told in its session so far; what to tell it next."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.sequence = 0
        self.tasks: dict[str, Task] = {}
        self.secrets: dict[str, int] = {}  # id → version
        self.configs: dict[str, int] = {}
        self.networks: dict[str, NetworkRecord] = {}
        self.peers: dict[str, PeerRecord] = {}
        self.endpoints: dict[tuple[str, str], EndpointRecord] = {}
        self.services: dict[tuple[str, str], ServiceRecord] = {}
        self.uses: set[str] = set()  # ids of the networks that the node takes part in

    def next(
        self,
        view: View,
        index: DataplaneIndex,
        held: Mapping[str, Task],
        touched: Delta,
        *,
        tasks_touched: bool,
    ) -> Assignments | None:
        """The next message, or None when the node knows all already. The first one is full.

        `touched` are the records that may have changed since the last message; `tasks_touched` whether
        tasks, secrets or configs may have.
        """
        full = self.sequence == 0
        tasks: list[Task] = []
        removed_tasks: list[str] = []
        secrets: list[Secret] = []
        configs: list[Config] = []
        removed_secrets: list[str] = []
        removed_configs: list[str] = []
        gained: set[str] = set()
        lost: set[str] = set()
        if tasks_touched or full:
            now = tasks_of_node(view, self.node_id, held)
            tasks = [task for id, task in now.items() if self._differs(id, task)]
            removed_tasks = [id for id in self.tasks if id not in now]
            self.tasks = now
            used = needs(now, index.ingress)
            node = view.get(Node, self.node_id)
            containers = node.containers if node is not None else ()
            used.networks.update(each.network_id for each in containers if each.address)
            if node is None or not node.description.encryption.method:
                # It would make it a plain one, if it is of an older version.
                used.networks -= {id for id in used.networks if _encrypted(index, id)}
            found_secrets = [secret for id in sorted(used.secrets) if (secret := view.get(Secret, id))]
            found_configs = [config for id in sorted(used.configs) if (config := view.get(Config, id))]
            secrets = [secret for secret in found_secrets if self.secrets.get(secret.id) != secret.version]
            configs = [config for config in found_configs if self.configs.get(config.id) != config.version]
            secret_versions = {secret.id: secret.version for secret in found_secrets}
            config_versions = {config.id: config.version for config in found_configs}
            removed_secrets = [id for id in self.secrets if id not in secret_versions]
            removed_configs = [id for id in self.configs if id not in config_versions]
            self.secrets, self.configs = secret_versions, config_versions
            gained, lost = used.networks - self.uses, self.uses - used.networks
            self.uses = used.networks

        dataplane = self._dataplane(index, touched, gained, lost, full=full)
        lists = (tasks, removed_tasks, secrets, removed_secrets, configs, removed_configs)
        if not full and dataplane.empty and not any(lists):
            return None
        self.sequence += 1
        return Assignments(
            sequence=self.sequence,
            full=full,
            tasks=tuple(tasks),
            removed_tasks=tuple(removed_tasks),
            secrets=tuple(secrets),
            removed_secrets=tuple(removed_secrets),
            configs=tuple(configs),
            removed_configs=tuple(removed_configs),
            dataplane=dataplane,
        )

    def _differs(self, id: str, task: Task) -> bool:
        before = self.tasks.get(id)
        return before is not task and (before is None or decided(before) != decided(task))

    def _dataplane(
        self, index: DataplaneIndex, touched: Delta, gained: set[str], lost: set[str], *, full: bool
    ) -> DataplaneChanges:
        """Compare the touched keys, and all of the networks gained or lost, with what was told."""
        networks = {id for id in touched.networks if id in self.uses} | gained | lost
        endpoints = {key for key in touched.endpoints if key[0] in self.uses}
        services = {key for key in touched.services if key[0] in self.uses}
        for network_id in gained:
            known = index.networks.get(network_id)
            if known is not None:
                endpoints.update((network_id, task_id) for task_id in known.endpoints)
                services.update((network_id, service_id) for service_id in known.services)
        if lost:
            endpoints.update(key for key in self.endpoints if key[0] in lost)
            services.update(key for key in self.services if key[0] in lost)
        peers = set(index.peers) if full else touched.peers

        def network(id: str) -> NetworkRecord | None:
            known = index.networks.get(id) if id in self.uses else None
            return known.network if known else None

        def endpoint(key: tuple[str, str]) -> EndpointRecord | None:
            return index.endpoint(key) if key[0] in self.uses else None

        def service(key: tuple[str, str]) -> ServiceRecord | None:
            return index.service(key) if key[0] in self.uses else None

        new_networks, gone_networks = _difference(self.networks, {id: network(id) for id in networks})
        new_peers, gone_peers = _difference(self.peers, {id: index.peers.get(id) for id in peers})
        new_endpoints, gone_endpoints = _difference(self.endpoints, {key: endpoint(key) for key in endpoints})
        new_services, gone_services = _difference(self.services, {key: service(key) for key in services})
        return DataplaneChanges(
            full=full,
            networks=new_networks,
            peers=new_peers,
            endpoints=new_endpoints,
            services=new_services,
            removed_networks=gone_networks,
            removed_peers=gone_peers,
            removed_endpoints=gone_endpoints,
            removed_services=gone_services,
        )


def _encrypted(index: DataplaneIndex, network_id: str) -> bool:
    known = index.networks.get(network_id)
    return known is not None and known.network is not None and known.network.encrypted


def _difference(told: dict[K, R], now: Mapping[K, R | None]) -> tuple[tuple[R, ...], tuple[K, ...]]:
    """What to send and what to remove so that the node has `now`; `told` is brought there."""
    changed = [record for key, record in now.items() if record is not None and told.get(key) != record]
    removed = [key for key, record in now.items() if record is None and key in told]
    for key, record in now.items():
        if record is None:
            told.pop(key, None)
        else:
            told[key] = record
    return tuple(changed), tuple(removed)
