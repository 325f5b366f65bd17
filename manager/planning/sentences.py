"""The outcome of a plan in sentences."""

from collections.abc import Sequence

from manager.planning.outcome import Misfit, Outcome, Place, ServiceOutcome

_SHOWN = 5


def sentences(outcome: Outcome) -> list[str]:
    """What would happen, object by object; one sentence that says so when nothing would."""
    found = [_object(o.kind, o.name, o.action) for o in outcome.objects]
    for service in outcome.services:
        found += _service(service)
    if all(o.action == "keep" and not o.starts and not o.unplaced for o in outcome.services) and not found:
        found = ["Nothing would change."]
    if not outcome.complete:
        found.append("It would not come to an end within what was looked ahead: the above is the way so far.")
    return found


def _object(kind: str, name: str, action: str) -> str:
    if action == "create":
        return f"{kind.capitalize()} {name} would be created."
    return f"{kind.capitalize()} {name} would get {action}."


def _service(service: ServiceOutcome) -> list[str]:
    name = f"Service {service.name}"
    if service.action == "keep" and not (service.starts or service.unplaced):
        return [f"{name} would stay as it is: {_tasks(service.kept)} kept."] if service.kept else []
    found = []
    if service.action == "create":
        found.append(f"{name} would be created.")
    elif service.action == "remove":
        found.append(f"{name} would be removed.")
    elif service.action == "update":
        found.append(f"{name} would be updated: {', '.join(service.changes) or 'nothing'} would change.")
        if service.replaced or service.moves:
            found.append(f"{name}: {_way(service)}")
    else:
        found.append(f"{name} waits for nodes and would get them.")
    if service.replaced:
        found.append(
            f"{name}: {_tasks(len(service.replaced))} would be replaced: {_places(service.replaced)}."
        )
    if service.starts:
        found.append(f"{name}: {_tasks(len(service.starts))} would start: {_places(service.starts)}.")
    if service.stops:
        found.append(f"{name}: {_tasks(len(service.stops))} would stop: {_places(service.stops)}.")
    for move in service.moves[:_SHOWN]:
        found.append(f"{name}: slot {move.slot} would move from {move.source} to {move.target}.")
    if len(service.moves) > _SHOWN:
        found.append(f"{name}: {len(service.moves) - _SHOWN} more slots would move.")
    found += _misfits(name, service.unplaced)
    if service.kept:
        found.append(f"{name}: {_tasks(service.kept)} would go on untouched.")
    if service.outdated:
        old = "it" if service.kept == 1 else f"{service.outdated} of them"
        found.append(f"{name}: the update would wait there, {old} with the old specification.")
    return found


def _way(service: ServiceOutcome) -> str:
    at_once = "all at once" if not service.parallelism else f"{service.parallelism} at a time"
    order = (
        "each new task starts before the old one stops"
        if service.order == "start-first"
        else "each old task stops before the new one starts"
    )
    return f"{at_once}, {order}."


def _misfits(name: str, misfits: Sequence[Misfit]) -> list[str]:
    by_reason: dict[tuple[str, bool], list[Misfit]] = {}
    for misfit in misfits:
        by_reason.setdefault((misfit.reason, bool(misfit.instead)), []).append(misfit)
    found = []
    for (reason, instead), group in by_reason.items():
        slots = [str(misfit.slot) for misfit in group if misfit.slot]
        where = (
            f" (slot {', '.join(slots[:_SHOWN])}{' and more' if len(slots) > _SHOWN else ''})"
            if slots
            else ""
        )
        meanwhile = "; the old task would go on" if instead else ""
        found.append(f"{name}: {_tasks(len(group))} would fit nowhere{where}: {reason}{meanwhile}.")
    return found


def _places(places: Sequence[Place]) -> str:
    counts: dict[str, int] = {}
    for place in places:
        key = place.node or "no node yet"
        counts[key] = counts.get(key, 0) + 1
    shown = [f"{count} on {node}" for node, count in sorted(counts.items())]
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN] + ([f"the others on {more} more nodes"] if more > 0 else []))


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
