"""What a service's spec names: secrets, configs and networks; refused when they don't exist."""

from collections.abc import Sequence

from msgspec.structs import replace

from cluster.errors import InvalidArgument, NotFound
from cluster.objects import Config, Network, Secret
from cluster.spec import (
    ConfigReference,
    ContainerSpec,
    EndpointSpec,
    NetworkAttachmentConfig,
    SecretReference,
    ServiceSpec,
)
from manager.api.lookup import find_network
from manager.store import View

_HOST = "host"


def resolve(view: View, spec: ServiceSpec) -> ServiceSpec:
    """The spec with networks named by id, secrets and configs by id and name. Raises InvalidArgument."""
    template = spec.task_template
    container = template.container_spec
    if container is not None:
        container = _with_files(view, container)
        template = replace(template, container_spec=container)
    if template.networks is None:
        return replace(spec, task_template=template)
    networks = [_network(view, attachment) for attachment in template.networks]
    if len({network.id for network in networks}) != len(networks):
        raise InvalidArgument("a network is given twice: each may be attached once")
    if any(network.driver == _HOST for network in networks):
        _check_host_network(networks, spec.endpoint_spec, container)
    named: list[NetworkAttachmentConfig] = [
        replace(attachment, target=network.id)
        for attachment, network in zip(template.networks, networks, strict=True)
    ]
    return replace(spec, task_template=replace(template, networks=named))


def _with_files(view: View, container: ContainerSpec) -> ContainerSpec:
    secrets = None if container.secrets is None else _secrets(view, container.secrets)
    configs = None if container.configs is None else _configs(view, container.configs)
    return replace(container, secrets=secrets, configs=configs)


def _secrets(view: View, references: Sequence[SecretReference]) -> list[SecretReference]:
    found, missing = [], []
    for reference in references:
        secret = view.get(Secret, reference.secret_id)
        if secret is None and not reference.secret_id:
            secret = view.by_name(Secret, reference.secret_name)
        if secret is None:
            missing.append(reference.secret_name or reference.secret_id)
        else:
            name = reference.secret_name or secret.spec.name
            found.append(replace(reference, secret_id=secret.id, secret_name=name))
    _refuse("secret", missing)
    return found


def _configs(view: View, references: Sequence[ConfigReference]) -> list[ConfigReference]:
    found, missing = [], []
    for reference in references:
        config = view.get(Config, reference.config_id)
        if config is None and not reference.config_id:
            config = view.by_name(Config, reference.config_name)
        if config is None:
            missing.append(reference.config_name or reference.config_id)
        else:
            name = reference.config_name or config.spec.name
            found.append(replace(reference, config_id=config.id, config_name=name))
    _refuse("config", missing)
    return found


def _refuse(kind: str, missing: Sequence[str]) -> None:
    if missing:
        raise InvalidArgument(f"{kind}{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}")


def _network(view: View, attachment: NetworkAttachmentConfig) -> Network:
    try:
        network = find_network(view, attachment.target)
    except NotFound as error:
        raise NotFound(
            f"network {attachment.target} not found among the swarm's networks; a node's own networks "
            "can't be used by services"
        ) from error
    if network.spec.ingress:
        raise InvalidArgument(
            f'Service cannot be explicitly attached to the ingress network "{network.spec.name}"'
        )
    return network


def _check_host_network(
    networks: Sequence[Network], endpoint: EndpointSpec | None, container: ContainerSpec | None
) -> None:
    """A container on its node's network has no address of its own, and no sysctls of its network."""
    if len(networks) > 1:
        raise InvalidArgument("a service on the network host can't be attached to other networks")
    for port in (endpoint.ports if endpoint else None) or ():
        if port.publish_mode != "host":
            raise InvalidArgument(
                "EndpointSpec: port published with ingress mode can't be used with the network host: "
                "publish it with mode=host, or leave it out"
            )
    for name in (container.sysctls if container else None) or {}:
        if name.startswith(("net.", "net/")):
            raise InvalidArgument(f"sysctl '{name}' not allowed in host network namespace")
