"""Who sends: a container or task of this node, one elsewhere, the host itself, or somebody outside."""

from dataclasses import dataclass

from cluster.dataplane import EndpointRecord
from cluster.errors import NotFound
from netplane.model import SandboxRecord
from netplane.names import served_networks
from netplane.trace.model import Scene

HOST, OUTSIDE = "host", "outside"


@dataclass(frozen=True)
class Source:
    """`sandbox`: it is on this node; `networks`: those that it is in, as far as this node knows."""

    title: str
    networks: tuple[str, ...] = ()
    sandbox: SandboxRecord | None = None
    elsewhere: EndpointRecord | None = None
    outside: bool = False  # no container, and not this node either

    @property
    def is_host(self) -> bool:
        """Whether this node itself sends."""
        return self.sandbox is None and self.elsewhere is None and not self.outside

    @property
    def resolvable(self) -> tuple[str, ...]:
        """The networks that names come from."""
        return served_networks(self.sandbox) if self.sandbox is not None else self.networks


def find_source(scene: Scene, name: str) -> Source:
    """Raises NotFound: nobody here is called so."""
    if name in (HOST, OUTSIDE):
        return Source("this node") if name == HOST else Source("a client outside", outside=True)
    matches = [record for record in scene.sandboxes.values() if name in _names(scene, record)]
    matches = matches or [
        record
        for record in scene.sandboxes.values()
        if len(name) > 3 and (record.sandbox.id.startswith(name) or record.spec.task_id.startswith(name))
    ]
    services = {service.service_id for _, service in scene.services(name)}
    matches = matches or [each for each in scene.sandboxes.values() if each.spec.service_id in services]
    if matches:
        record = matches[0]
        return Source(scene.title(record), record.networks, record)
    for network_id in scene.records.networks:
        for endpoint in scene.records.endpoints(network_id):
            known = (endpoint.task_name, endpoint.task_name.rpartition(".")[0], endpoint.task_id)
            if name in known or endpoint.service_id in services:
                networks = tuple(
                    each
                    for each, record in scene.records.networks.items()
                    if not record.ingress
                    and any(other.task_id == endpoint.task_id for other in scene.records.endpoints(each))
                )
                return Source(endpoint.task_name, networks, elsewhere=endpoint)
    raise NotFound(
        f"no container, task or service {name} in the networks that this node knows: give the name or id of "
        "one that runs here, or host, or outside",
    )


def _names(scene: Scene, record: SandboxRecord) -> set[str]:
    found = {record.sandbox.id, record.sandbox.id[:12], record.spec.hostname, record.spec.task_id}
    for attachment in record.spec.attachments:
        found.update(attachment.names)
    title = scene.title(record)
    found.update((title, title.rpartition(".")[0]))
    return found - {""}
