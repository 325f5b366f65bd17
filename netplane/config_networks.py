"""Networks that only hold settings (`docker network create --config-only`), and those that take theirs from
one (`--config-from`). Pure. The rules and words are libnetwork's."""

from collections.abc import Callable

from msgspec.structs import replace

from cluster.errors import Forbidden, NotFound
from cluster.spec import NetworkSpec
from netplane.model import LocalNetwork


def check_settings_only(spec: NetworkSpec) -> None:
    """Refuse what such a network can't hold."""
    if spec.config_from is not None and spec.config_from.network:
        raise Forbidden("a configuration network depends on another configuration network")
    if spec.internal or spec.attachable or spec.ingress or spec.scope not in ("", "local"):
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported."
        )


def completed(spec: NetworkSpec, find: Callable[[str], LocalNetwork | None]) -> NetworkSpec:
    """The spec with the settings of the network that it names in ConfigFrom, if it names one."""
    name = spec.config_from.network if spec.config_from is not None else ""
    if not name:
        return spec
    source = find(name)
    if source is None:
        raise NotFound(f'configuration network "{name}" does not exist')
    if not source.spec.config_only:
        raise Forbidden(f'network "{source.name}" is not a configuration network')
    own_ipam = spec.ipam is not None and (spec.ipam.config or spec.ipam.options)
    if own_ipam or spec.options or spec.enable_ipv6:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    settings = source.spec
    return replace(
        spec,
        ipam=settings.ipam,
        options=settings.options,
        enable_ipv4=settings.enable_ipv4,
        enable_ipv6=settings.enable_ipv6,
        labels={**(settings.labels or {}), **(spec.labels or {})},
        config_from=replace(spec.config_from, network=source.name) if spec.config_from else None,
    )
