"""The filters of GET /containers/json. Values of one key are alternatives; all keys must match."""

import re
from collections.abc import Callable, Mapping

from cluster.errors import InvalidArgument
from cluster.pattern import compiled
from worker.api.http import boolean_filter, matches_labels
from worker.containers.networks import host_ports
from worker.containers.record import record_of
from worker.engine import Engine
from worker.runtime.model import ContainerConfig, ContainerState, ContainerStatus, HealthStatus

Found = tuple[ContainerConfig, ContainerState]

KNOWN_FILTERS = {
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name",
    "network", "publish", "since", "status", "volume",
}  # fmt: skip

_STATES = {*ContainerStatus, "restarting", "removing"}
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")


def matcher(
    engine: Engine,
    wanted: Mapping[str, list[str]],
    find: Callable[[str], Found],
    restarting: Callable[[str], bool],
) -> Callable[[Found], bool]:
    """A test for containers. `find` looks one up by name, `restarting` knows which wait for their restart.

    Raises InvalidArgument, and what `find` raises.
    """
    tests: list[Callable[[ContainerConfig, ContainerState], bool]] = []

    def add(key: str, test: Callable[[ContainerConfig, ContainerState, str], bool]) -> None:
        if values := wanted.get(key):
            tests.append(lambda config, state: any(test(config, state, value) for value in values))

    add("id", lambda config, _, v: config.id.startswith(v))
    add("ancestor", lambda config, _, v: _descends(config, v))
    add(
        "volume",
        lambda config, _, v: any(v in (m.volume_name, m.target, str(m.source)) for m in config.mounts),
    )
    add("network", lambda config, _, v: _attached(engine, config, v))
    _check(wanted, "status", _STATES)
    add(
        "status",
        lambda config, state, v: v == ("restarting" if restarting(config.id) else state.status.value),
    )
    _check(wanted, "health", set(HealthStatus))
    add("health", lambda _, state, v: state.health.status.value == v)
    _check(wanted, "exited", None)
    add("exited", lambda _, state, v: state.status is ContainerStatus.EXITED and state.exit_code == int(v))
    names = [compiled(text) for text in wanted.get("name", ())]
    if names:
        tests.append(
            lambda config, _: any(n.search(config.name) or n.search(f"/{config.name}") for n in names)
        )
    task = boolean_filter(wanted, "is-task")
    if task is not None:
        tests.append(lambda config, _: ("com.docker.swarm.task.id" in config.labels) == task)
    for key in ("publish", "expose"):
        ranges = [_ports(key, text) for text in wanted.get(key, ())]
        if ranges:
            tests.append(_publishes(engine, key, ranges))
    for key, sign in (("since", 1), ("before", -1)):
        for value in wanted.get(key, ()):
            tests.append(_created(sign, find(value)[0].created_at))
    labels = wanted.get("label", [])
    return lambda found: matches_labels(found[0].labels, labels) and all(test(*found) for test in tests)


def _created(sign: int, moment: int) -> Callable[[ContainerConfig, ContainerState], bool]:
    return lambda config, _: sign * (config.created_at - moment) > 0


def _check(wanted: Mapping[str, list[str]], key: str, allowed: set[str] | None) -> None:
    for value in wanted.get(key, ()):
        if allowed is None:
            if not re.fullmatch(r"-?\d{1,9}", value):
                raise InvalidArgument(f"invalid filter '{key}={value}': expected a number")
        elif value not in allowed:
            raise InvalidArgument(f"invalid filter '{key}={value}': use one of {', '.join(sorted(allowed))}")


def _descends(config: ContainerConfig, name: str) -> bool:
    digest = config.image_id.removeprefix("sha256:")
    return (
        name in (config.image_name, config.image_id)
        or config.image_name.startswith((f"{name}:", f"{name}@"))
        or (len(name) >= 4 and digest.startswith(name.removeprefix("sha256:")))
    )


def _attached(engine: Engine, config: ContainerConfig, name: str) -> bool:
    record = record_of(config)
    if record is not None and engine.network_id(name) in map(engine.network_id, record.endpoints):
        return True
    sandbox = engine.network.sandboxes().get(config.id)
    return sandbox is not None and any(
        name in (network, engine.network_name(network)) for network in sandbox.addresses
    )


def _ports(key: str, text: str) -> tuple[int, int, str]:
    match = _PORTS.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid filter '{key}={text}': write PORT[-PORT][/PROTOCOL]")
    first = int(match[1])
    return first, int(match[2] or first), match[3] or "tcp"


def _publishes(
    engine: Engine, key: str, ranges: list[tuple[int, int, str]]
) -> Callable[[ContainerConfig, ContainerState], bool]:
    def test(config: ContainerConfig, _: ContainerState) -> bool:
        sandbox, record = engine.network.sandboxes().get(config.id), record_of(config)
        bound = list(sandbox.ports) if sandbox else []
        if record is not None and not bound:
            bound = [port for port, _ in host_ports(record.settings, record.host)]
        ports = [(port.published if key == "publish" else port.target, str(port.protocol)) for port in bound]
        if key == "expose" and record is not None:
            exposed = (text.partition("/") for text in record.settings.exposed_ports or {})
            ports += [(int(port), kind or "tcp") for port, _, kind in exposed if port.isdigit()]
        return any(
            first <= port <= last and protocol == wanted
            for port, protocol in ports
            for first, last, wanted in ranges
        )

    return test
