"""Waiting, with a live display, until a service is as asked for."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cluster.errors import ShoalError
from shoal.cli.client import Engine, Json
from shoal.cli.convergence import STEPS, Convergence, combined, measure

STABLE_SECONDS = 2.0
"""How long everything must have run before a service counts as stable."""

_POLL_SECONDS = 0.2
_MOST_ROWS = 20
_BAR = 40


def observe(engine: Engine, service_id: str, *, rollback: bool = False) -> Convergence:
    """Where the service stands now, on its way back if a roll-back was asked for.

    Raises:
        EngineError: the service is gone, or the cluster can't answer.
    """
    matching = engine.get("/services", filters={"id": [service_id]}, status=True)
    service: Json = matching[0] if matching else engine.get(f"/services/{service_id}")
    tasks = engine.get("/tasks", filters={"service": [service_id], "_up-to-date": ["true"]})
    nodes = {node["ID"]: node for node in engine.get("/nodes")}
    return measure(service, tasks, nodes, rollback=rollback)


def render(state: Convergence) -> Group:
    """The display of one instant: a line for all, and one for each of the first slots."""
    lines = [Text(f"overall progress: {state.running} out of {state.wanted} tasks")]
    for slot in state.slots[:_MOST_ROWS]:
        filled = _BAR * slot.steps // len(STEPS)
        bar = "━" * filled
        line = Text.assemble(
            f"{slot.name:>12} ",
            (bar, "green" if slot.state == "running" else "cyan"),
            ("━" * (_BAR - filled), "bright_black"),
            f" {slot.state:<10}",
            (f" {slot.node}", "bright_black"),
            (f"  {slot.error}" if slot.error else "", "red"),
        )
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line)
    if len(state.slots) > _MOST_ROWS:
        lines.append(Text(f"{'':>12} and {len(state.slots) - _MOST_ROWS} more"))
    return Group(*lines)


def _news(state: Convergence, told: list[str]) -> Iterator[str]:
    """What a log of the way has not said yet: a changed count, and each error once.

    Args:
        told: what has been said, the count first; kept up by this function.
    """
    count = f"{state.running} out of {state.wanted} tasks {'have completed' if state.job else 'run'}"
    if told[0] != count:
        told[0] = count
        yield count
    for error in {slot.error for slot in state.slots if slot.error}.difference(told):
        told.append(error)
        yield f"a task failed: {error}"


def wait(
    look: Callable[[], Convergence],
    console: Console,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the service's way until it has been as asked for through STABLE_SECONDS.

    A manager that can't answer for a moment, as at a change of leader, only delays the next look.

    Raises:
        ShoalError: an update was paused or rolled back; says why.
    """
    stable_since: float | None = None
    silent_since: float | None = None
    told: list[str] = [""]
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            try:
                state = look()
                silent_since = None
            except ShoalError as error:
                if error.status < 500:
                    raise
                silent_since = silent_since or clock()
                if clock() - silent_since > 30:
                    raise
                sleep(_POLL_SECONDS)
                continue
            if console.is_terminal:
                live.update(render(state), refresh=True)
            else:
                for line in _news(state, told):
                    console.print(line, markup=False, highlight=False, soft_wrap=True)
            if state.stopped:
                raise ShoalError(f"the service's update has stopped ({state.stopped})")
            stable_since = (stable_since if stable_since is not None else clock()) if state.done else None
            if stable_since is not None and clock() - stable_since >= STABLE_SECONDS:
                console.print("everything is as asked for")
                return
            sleep(_POLL_SECONDS)


def wait_for_service(engine: Engine, service_id: str, *, quiet: bool, rollback: bool = False) -> None:
    """Wait, with the display on standard error unless `quiet`; Ctrl-C only ends the waiting."""
    _wait_for(lambda: observe(engine, service_id, rollback=rollback), quiet=quiet)


def wait_for_services(engine: Engine, services: Mapping[str, str], *, quiet: bool) -> None:
    """Wait for all of them together; `services` are ids by name."""
    look = {name: partial(observe, engine, id) for name, id in services.items()}
    _wait_for(lambda: combined({name: see() for name, see in look.items()}), quiet=quiet)


def _wait_for(look: Callable[[], Convergence], *, quiet: bool) -> None:
    console = Console(stderr=True, quiet=quiet)
    try:
        wait(look, console)
    except KeyboardInterrupt:
        console.print("the cluster goes on with it; `shoal service ps` shows how far it is")
