"""/secrets and /configs: create, list, inspect, update (labels only), delete."""

from typing import TypeVar

from aiohttp import web
from msgspec.structs import replace

from cluster.engine_json import config_json, secret_json
from cluster.errors import InvalidArgument, OutOfSequence
from cluster.ids import new_id
from cluster.objects import Config, Secret
from cluster.spec import ConfigSpec, SecretSpec
from cluster.validate import check_config, check_labels, check_name_free, check_secret, check_values
from manager.api.access import ACCESS
from manager.api.filters import Filters, parse_filters
from manager.api.lookup import find_config, find_secret
from manager.api.reads import state
from manager.api.request import answer, api_version, body, version
from manager.api.versions import check_templating
from manager.store import Transaction, View
from manager.versions import kept_labels

_FILTERS = frozenset({"id", "label", "name", "names"})
_Payload = TypeVar("_Payload", Secret, Config)


def _listed(payload: Secret | Config, filters: Filters) -> bool:
    return (
        filters.prefix("id", payload.id)
        and filters.prefix("name", payload.spec.name)
        and filters.exact("names", payload.spec.name)
        and filters.labels(payload.spec.labels)
    )


def _refuse_used(view: View, payload: Secret | Config) -> None:
    if services := view.services_using(payload.id):
        names = ", ".join(service.spec.name for service in services)
        plural = "s" if len(services) > 1 else ""
        raise InvalidArgument(
            f"{payload.kind} '{payload.spec.name}' is in use by the following service{plural}: {names}"
        )


def _relabelled(old: _Payload, spec: SecretSpec | ConfigSpec, index: int) -> _Payload:
    """The object with new labels. Data may be given again unchanged (as `stack deploy` does)."""
    if old.version != index:
        raise OutOfSequence()
    check_values(spec)
    check_labels(spec.labels)
    same_name = not spec.name or spec.name == old.spec.name
    same_data = not spec.data or spec.data == old.spec.data
    if not same_name or not same_data:
        raise InvalidArgument(
            f"only updates to Labels are allowed; new content makes a new version: "
            f"shoal {old.kind} update {old.spec.name} FILE"
        )
    return replace(old, spec=replace(old.spec, labels=kept_labels(old.spec.labels, spec.labels)))


# --- secrets --------------------------------------------------------------------------------------------


async def list_secrets(request: web.Request) -> web.Response:
    """GET /secrets."""
    filters = parse_filters(request, _FILTERS)
    view = await state(request)
    return answer([secret_json(s) for s in view.all(Secret) if _listed(s, filters)])


async def inspect_secret(request: web.Request) -> web.Response:
    """GET /secrets/{id}."""
    view = await state(request)
    return answer(secret_json(find_secret(view, request.match_info["id"])))


async def create_secret(request: web.Request) -> web.Response:
    """POST /secrets/create."""
    access = request.app[ACCESS]
    spec = await body(request, SecretSpec)
    check_templating(spec.templating, "secret", api_version(request))
    check_secret(spec)
    id = new_id(access.rng)

    def create(tx: Transaction) -> None:
        check_name_free("secret", spec.name, tx.by_name(Secret, spec.name) is not None)
        tx.create(Secret(id=id, spec=replace(spec, labels=kept_labels(None, spec.labels))))

    await access.store.update_retrying(create)
    return answer({"ID": id}, status=201)


async def update_secret(request: web.Request) -> web.Response:
    """POST /secrets/{id}/update."""
    index = version(request, "secret")
    spec = await body(request, SecretSpec)
    what = request.match_info["id"]
    await request.app[ACCESS].store.update(
        lambda tx: tx.update(_relabelled(find_secret(tx, what), spec, index))
    )
    return web.Response()


async def delete_secret(request: web.Request) -> web.Response:
    """DELETE /secrets/{id}; refused while a service uses it."""
    what = request.match_info["id"]

    def delete(tx: Transaction) -> None:
        secret = find_secret(tx, what)
        _refuse_used(tx, secret)
        tx.delete(Secret, secret.id)

    await request.app[ACCESS].store.update_retrying(delete)
    return web.Response(status=204)


# --- configs --------------------------------------------------------------------------------------------


async def list_configs(request: web.Request) -> web.Response:
    """GET /configs."""
    filters = parse_filters(request, _FILTERS)
    view = await state(request)
    return answer([config_json(c) for c in view.all(Config) if _listed(c, filters)])


async def inspect_config(request: web.Request) -> web.Response:
    """GET /configs/{id}."""
    view = await state(request)
    return answer(config_json(find_config(view, request.match_info["id"])))


async def create_config(request: web.Request) -> web.Response:
    """POST /configs/create."""
    access = request.app[ACCESS]
    spec = await body(request, ConfigSpec)
    check_templating(spec.templating, "config", api_version(request))
    check_config(spec)
    id = new_id(access.rng)

    def create(tx: Transaction) -> None:
        check_name_free("config", spec.name, tx.by_name(Config, spec.name) is not None)
        tx.create(Config(id=id, spec=replace(spec, labels=kept_labels(None, spec.labels))))

    await access.store.update_retrying(create)
    return answer({"ID": id}, status=201)


async def update_config(request: web.Request) -> web.Response:
    """POST /configs/{id}/update."""
    index = version(request, "config")
    spec = await body(request, ConfigSpec)
    what = request.match_info["id"]
    await request.app[ACCESS].store.update(
        lambda tx: tx.update(_relabelled(find_config(tx, what), spec, index))
    )
    return web.Response()


async def delete_config(request: web.Request) -> web.Response:
    """DELETE /configs/{id}; refused while a service uses it."""
    what = request.match_info["id"]

    def delete(tx: Transaction) -> None:
        config = find_config(tx, what)
        _refuse_used(tx, config)
        tx.delete(Config, config.id)

    await request.app[ACCESS].store.update_retrying(delete)
    return web.Response(status=204)
