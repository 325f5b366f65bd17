"""Shoal's own: POST /shoal/secrets/{id}/versions and /shoal/configs/{id}/versions, new content for a name."""

from collections.abc import Callable

from aiohttp import web

from cluster.errors import NotImplementedHere
from cluster.ids import new_id
from cluster.spec import ConfigSpec, SecretSpec
from cluster.validate import check_config, check_secret
from manager.api.access import ACCESS
from manager.api.lookup import find_config, find_secret
from manager.api.request import answer, body
from manager.store import Transaction
from manager.versions.payloads import Outcome, replaced


async def update_secret(request: web.Request) -> web.Response:
    """POST /shoal/secrets/{id}/versions: Data of a SecretSpec, and its Labels and Templating if given."""
    spec = await body(request, SecretSpec)
    if spec.driver is not None:
        raise NotImplementedHere("the content of a secret with a driver is the driver's: it has no versions")

    def write(tx: Transaction, id: str, now: int) -> Outcome:
        old = find_secret(tx, request.match_info["id"])
        check_secret(
            SecretSpec(name=old.spec.name, labels=spec.labels, data=spec.data, templating=spec.templating)
        )
        return replaced(tx, old, spec, id, now)

    return await _written(request, write)


async def update_config(request: web.Request) -> web.Response:
    """POST /shoal/configs/{id}/versions: as for secrets."""
    spec = await body(request, ConfigSpec)

    def write(tx: Transaction, id: str, now: int) -> Outcome:
        old = find_config(tx, request.match_info["id"])
        check_config(
            ConfigSpec(name=old.spec.name, labels=spec.labels, data=spec.data, templating=spec.templating)
        )
        return replaced(tx, old, spec, id, now)

    return await _written(request, write)


async def _written(request: web.Request, write: Callable[[Transaction, str, int], Outcome]) -> web.Response:
    access = request.app[ACCESS]
    id = new_id(access.rng)
    outcomes: list[Outcome] = []
    await access.store.update_retrying(lambda tx: outcomes.append(write(tx, id, access.clock.now())))
    outcome = outcomes[-1]
    return answer({"ID": outcome.id, "Version": outcome.number, "Services": list(outcome.services)})
