"""The order in which a stack's services start and stop. Pure."""

from collections.abc import Mapping, Sequence

CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
"""What a service may wait for: that another's tasks have started, run (their health checks hold), or have all
completed."""


class Circle(ValueError):
    """Services that wait for one another; `names` in a circle, the first again at its end."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(" → ".join(names))
        self.names = tuple(names)


def start_order(depends_on: Mapping[str, Mapping[str, str]]) -> list[str]:
    """All services, each after those that it depends on; else in alphabetical order. Names that are not
    services of the stack hold nothing up. Raises Circle."""
    done: dict[str, None] = {}
    for name in sorted(depends_on):
        _visit(name, depends_on, done)
    return list(done)


def _visit(name: str, depends_on: Mapping[str, Mapping[str, str]], done: dict[str, None]) -> None:
    """Depth first, with a stack of our own: a file may hold more services than Python's has room for."""
    path: dict[str, list[str]] = {}
    todo = [name]
    while todo:
        current = todo[-1]
        if current in done:
            todo.pop()
            continue
        if current not in path:
            path[current] = sorted(other for other in depends_on[current] if other in depends_on)
        waiting = [other for other in path[current] if other not in done]
        if not waiting:
            done[current] = None
            del path[current]
            todo.pop()
        elif waiting[0] in path:
            names = list(path)
            raise Circle([*names[names.index(waiting[0]) :], waiting[0]])
        else:
            todo.append(waiting[0])


def stop_order(depends_on: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Services in groups: each group depends only on those in later groups, so that it goes before them.
    Services in a circle go together, last."""
    left = {name: set(others) & set(depends_on) for name, others in depends_on.items()}
    groups: list[list[str]] = []
    while left:
        needed = {other for others in left.values() for other in others}
        free = sorted(set(left) - needed) or sorted(left)
        groups.append(free)
        for name in free:
            del left[name]
    return groups


def label(text: str) -> dict[str, str]:
    """What a label `db:service_healthy,cache:service_started` says; parts that say nothing are left out."""
    found = {}
    for part in text.split(","):
        name, _, condition = part.partition(":")
        if name:
            found[name] = condition if condition in CONDITIONS else CONDITIONS[0]
    return found
