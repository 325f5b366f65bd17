"""/services: create, list, inspect, update, roll back, delete."""

import base64
import binascii
from collections.abc import Iterable
from functools import partial

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cluster.codec import carried
from cluster.defaults import stored_service, with_defaults
from cluster.engine_json import service_json
from cluster.errors import InvalidArgument, OutOfSequence
from cluster.ids import new_id
from cluster.objects import Network, Node, Service, Task, UpdateStatus
from cluster.spec import Placement, ServiceSpec
from cluster.states import TaskState, UpdateState
from cluster.validate import check_service, check_service_update, mode_word
from manager.allocator import check_conflicts
from manager.api.access import ACCESS
from manager.api.encoded import ENCODED, OF_SERVICES
from manager.api.filters import Filters, parse_filters
from manager.api.lookup import find_service
from manager.api.reads import state
from manager.api.references import resolve
from manager.api.request import answer, api_version, body, encoded_answer, strict_flag, version
from manager.api.versions import STATUS, understood
from manager.orchestrator.job import executed, is_job, of_iteration
from manager.orchestrator.replicated_job import is_replicated_job, max_concurrent
from manager.orchestrator.situation import dirty
from manager.store import Transaction, View

_FILTERS = frozenset({"id", "label", "mode", "name", "runtime"})


async def list_services(request: web.Request) -> web.Response:
    """GET /services."""
    filters = parse_filters(request, _FILTERS)
    with_status = api_version(request) >= STATUS and strict_flag(request, "status")
    view = await state(request)
    encoded = request.app[ENCODED]

    def made() -> bytes:
        services = [service for service in view.all(Service) if not filters or _listed(service, filters)]
        return encoded.services(view, services, partial(_status, view) if with_status else None)

    what = ("services", request.query.get("filters", ""), with_status)
    return encoded_answer(encoded.answer(what, view, OF_SERVICES, made))


def _listed(service: Service, filters: Filters) -> bool:
    return (
        filters.prefix("id", service.id)
        and filters.prefix("name", service.spec.name)
        and filters.labels(service.spec.labels)
        and filters.exact("runtime", service.spec.task_template.runtime or "container")
        and filters.exact("mode", mode_word(service.spec))
    )


async def inspect_service(request: web.Request) -> web.Response:
    """GET /services/{id}."""
    view = await state(request)
    service = find_service(view, request.match_info["id"])
    defaults = strict_flag(request, "insertDefaults")
    return answer(service_json(service, partial(view.get, Network), insert_defaults=defaults))


def _status(view: View, service: Service) -> tuple[int, int, int]:
    """Running, desired and completed tasks."""
    tasks = view.tasks_of_service(service.id)
    if is_job(service):
        return _job_status(service, tasks)
    wanted = [task for task in tasks if not task.desired_state.stops]
    running = sum(task.status.state is TaskState.RUNNING for task in wanted)
    mode = service.spec.mode
    desired = len(wanted) if mode.replicated is None else mode.replicated.replicas or 0
    return running, desired, 0


def _job_status(service: Service, tasks: Iterable[Task]) -> tuple[int, int, int]:
    """Of the present iteration. As SwarmKit says it: a replicated job desires as many as may run at once, a
    global one those that have not completed yet."""
    present = [task for task in tasks if of_iteration(service, task)]
    done = {(task.slot or task.node_id) for task in present if task.status.state is TaskState.COMPLETE}
    wanted = [
        task
        for task in present
        if task.status.state is not TaskState.COMPLETE and not task.desired_state.stops
    ]
    running = sum(task.status.state is TaskState.RUNNING for task in wanted)
    desired = max_concurrent(service) if is_replicated_job(service) else len(wanted)
    return running, desired, len(done)


async def create_service(request: web.Request) -> web.Response:
    """POST /services/create."""
    access = request.app[ACCESS]
    spec = understood(await body(request, ServiceSpec), api_version(request))
    check_service(spec)
    auth = registry_auth(request)
    id = new_id(access.rng)

    def create(tx: Transaction) -> None:
        resolved = resolve(tx, stored_service(spec))
        check_conflicts(tx, resolved.endpoint_spec)
        service = Service(id=id, spec=resolved, registry_auth=auth)
        tx.create(executed(service, access.clock.now()))

    await access.store.update_retrying(create)
    return answer({"ID": id, "Warnings": None}, status=201)


async def update_service(request: web.Request) -> web.Response:
    """POST /services/{id}/update, also `rollback=previous`."""
    access = request.app[ACCESS]
    index = version(request, "service")
    rollback = request.query.get("rollback", "")
    if rollback not in ("", "none", "previous"):
        raise InvalidArgument(f"unrecognized rollback option {rollback}")
    auth_from = request.query.get("registryAuthFrom", "")
    if auth_from not in ("", "spec", "previous-spec"):
        raise InvalidArgument(f"unsupported registryAuthFrom {auth_from!r}: spec or previous-spec")
    spec = understood(await body(request, ServiceSpec), api_version(request))
    auth = registry_auth(request)
    what = request.match_info["id"]

    def update(tx: Transaction) -> None:
        service = find_service(tx, what)
        if service.version != index:
            raise OutOfSequence()
        changed = rolled_back(service, tx.index, access.clock.now()) if rollback == "previous" else None
        if changed is None:
            check_service_update(service, spec)
            new = carried(
                service.spec,
                same_order(service.spec, same_image(service.spec, resolve(tx, stored_service(spec)))),
            )
            if unchanged(service, new):
                # A new version, as every update makes one, but no new specification to go back from.
                tx.update(replace(service, registry_auth=auth or service.registry_auth))
                return
            changed = respecified(service, new, access.clock.now())
        check_conflicts(tx, changed.spec.endpoint_spec, service.id)
        tx.update(replace(changed, registry_auth=auth or service.registry_auth))

    await access.store.update(update)
    return answer({"Warnings": None})


async def delete_service(request: web.Request) -> web.Response:
    """DELETE /services/{id}."""
    what = request.match_info["id"]

    def delete(tx: Transaction) -> None:
        tx.delete(Service, find_service(tx, what).id)

    await request.app[ACCESS].store.update_retrying(delete)
    return web.Response()


def unchanged(service: Service, spec: ServiceSpec) -> bool:
    """Whether an update asks for what is there. One that was paused or rolled back is begun again by it."""
    status = service.update_status
    going = status is None or status.state in (UpdateState.UPDATING, UpdateState.COMPLETED)
    return going and spec == service.spec


def same_image(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    """The new spec; if it has the old one's pinned image, with the platforms that were found with its digest.

    `docker stack deploy --resolve-image changed` leaves them out, which is no change.
    """
    before, after = old.task_template, new.task_template
    image = after.container_spec.image if after.container_spec else ""
    pinned = "@" in image and before.container_spec is not None and before.container_spec.image == image
    platforms = before.placement.platforms if before.placement else None
    placement = after.placement or Placement()
    if not pinned or not platforms or placement.platforms:
        return new
    return replace(new, task_template=replace(after, placement=replace(placement, platforms=platforms)))


def same_order(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    """The new spec; what it lists of secrets, configs and limits in another order only, in the old one's.

    The order means nothing, and `docker stack deploy` sends two references to one secret in any.
    """
    before, after = old.task_template.container_spec, new.task_template.container_spec
    if before is None or after is None:
        return new
    kept = {
        name: getattr(before, name)
        for name in ("secrets", "configs", "ulimits")
        if getattr(after, name) != getattr(before, name)
        and sorted(getattr(after, name) or (), key=repr) == sorted(getattr(before, name) or (), key=repr)
        and getattr(after, name)
    }
    if not kept:
        return new
    return replace(new, task_template=replace(new.task_template, container_spec=replace(after, **kept)))


def respecified(service: Service, spec: ServiceSpec, now: int) -> Service:
    """The service with a new spec; the old one becomes the one to roll back to, unless it is the same, by
    which a paused update goes on. A job whose spec changes is executed anew; `now` in ns."""
    if spec == service.spec:
        return replace(service, update_status=None)
    changed = replace(
        service,
        spec=spec,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        update_status=None,
    )
    same = with_defaults(spec) == with_defaults(service.spec)
    return changed if same else executed(changed, now)


def rolled_back(service: Service, version: int, now: int) -> Service:
    """The service with its previous spec; the present one becomes the previous.

    `version` is of the state that was read, `now` in ns.
    """
    if service.previous_spec is None:
        raise InvalidArgument(f"service {service.spec.name} does not have a previous spec")
    if is_job(service):
        return respecified(service, service.previous_spec, now)  # nothing is updated: the job runs again
    return replace(
        service,
        spec=service.previous_spec,
        spec_version=service.previous_spec_version,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        update_status=UpdateStatus(
            state=UpdateState.ROLLBACK_STARTED,
            started_version=version,
            started_at=now,
            message="manually requested rollback",
        ),
    )


def registry_auth(request: web.Request) -> str:
    """The X-Registry-Auth header: base64url JSON, kept as given; empty when it carries nothing."""
    given = request.headers.get("X-Registry-Auth", "").strip()
    if not given:
        return ""
    try:
        decoded = msgspec.json.decode(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))
    except (msgspec.MsgspecError, binascii.Error, ValueError) as error:
        raise InvalidArgument("invalid X-Registry-Auth header: it must be base64url-encoded JSON") from error
    if not isinstance(decoded, dict):
        raise InvalidArgument("invalid X-Registry-Auth header: it must hold a JSON object")
    return given if decoded else ""


def up_to_date(view: View, task: Task) -> bool:
    """Whether the task runs its service's present spec; false when the service is gone."""
    service = view.get(Service, task.service_id)
    if service is None or not of_iteration(service, task):
        return False
    return not dirty(service, task, view.get(Node, task.node_id))
