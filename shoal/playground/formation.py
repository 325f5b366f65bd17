"""Turning freshly started engines into a cluster, through the Engine API as any user would."""

import time
from collections.abc import Callable, Sequence

from cluster.errors import ShoalError, Unavailable
from shoal.cli.client import Engine, EngineError, Unreachable
from shoal.playground.layout import MANAGER_PORT, Host

READY_SECONDS = 90.0
_POLL_SECONDS = 0.1


def _in_cluster(engine: Engine) -> bool:
    state = engine.get("/info").get("Swarm", {}).get("LocalNodeState", "inactive")
    return bool(state not in ("inactive", ""))


def form(hosts: Sequence[Host], managers: int, say: Callable[[str], None]) -> None:
    """Make the hosts one cluster: the first `managers` of them its managers, the rest workers.

    Hosts that are already in a cluster, from an earlier run with the same folder, are left as they are.
    Managers join one at a time: a Raft group changes by one member at a time.

    Args:
        say: told each step, in a sentence.

    Raises:
        ShoalError: an engine refuses, or the nodes do not become ready in time; says which and why.
    """
    engines = {host.name: Engine(host.docker_host) for host in hosts}
    first, *others = hosts
    leader = engines[first.name]
    listen = f"0.0.0.0:{MANAGER_PORT}"
    if not _in_cluster(leader):
        say(f"{first.name}: swarm init")
        leader.post(
            "/swarm/init",
            {
                "ListenAddr": listen,
                "AdvertiseAddr": f"{first.address}:{MANAGER_PORT}",
                "ForceNewCluster": False,
            },
        )
    tokens = _join_tokens(leader)
    for number, host in enumerate(others, start=2):
        role = "Manager" if number <= managers else "Worker"
        if _in_cluster(engines[host.name]):
            continue
        say(f"{host.name}: join as {role.lower()}")
        engines[host.name].post(
            "/swarm/join",
            {
                "ListenAddr": listen,
                "AdvertiseAddr": f"{host.address}:{MANAGER_PORT}",
                "RemoteAddrs": [f"{first.address}:{MANAGER_PORT}"],
                "JoinToken": tokens[role],
            },
        )
    wait_ready(leader, len(hosts), managers)
    say("all nodes are ready")


def _join_tokens(engine: Engine) -> dict[str, str]:
    """The join tokens; a leader that has only just been elected may need a moment."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            tokens: dict[str, str] = engine.get("/swarm")["JoinTokens"]
            return tokens
        except EngineError as error:
            if error.status < 500 or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def wait_ready(engine: Engine, nodes: int, managers: int) -> None:
    """Wait until that many nodes are ready and that many managers reachable.

    Raises:
        Unavailable: they are not, in time; names what is missing.
    """
    deadline = time.monotonic() + READY_SECONDS
    missing = ""
    while time.monotonic() < deadline:
        try:
            listed = engine.get("/nodes")
        except (EngineError, Unreachable) as error:
            missing = str(error)
        else:
            ready = sum(node["Status"]["State"] == "ready" for node in listed)
            reachable = sum(
                (node.get("ManagerStatus") or {}).get("Reachability") == "reachable" for node in listed
            )
            if ready >= nodes and reachable >= managers:
                return
            missing = f"{ready} of {nodes} nodes are ready, {reachable} of {managers} managers reachable"
        time.sleep(_POLL_SECONDS)
    raise Unavailable(
        f"the cluster did not come together in {READY_SECONDS:.0f} s: {missing}; see hostN/shoald.log"
    )


def wait_answering(hosts: Sequence[Host], seconds: float, ended: Callable[[Host], str | None]) -> None:
    """Wait until the engine of every host answers.

    Args:
        ended: why a host's daemon has ended, or None while it runs; ends the wait early.

    Raises:
        ShoalError: an engine ended or does not answer in time.
    """
    deadline = time.monotonic() + seconds
    for host in hosts:
        engine = Engine(host.docker_host)
        while not engine.ping(timeout=1.0):
            if (reason := ended(host)) is not None:
                raise ShoalError(
                    f"the daemon of {host.name} ended ({reason}): {last_line(host)}; see {host.log}"
                )
            if time.monotonic() > deadline:
                raise ShoalError(
                    f"the daemon of {host.name} does not answer after {seconds:.0f} s; see {host.log}"
                )
            time.sleep(0.02)


def last_line(host: Host) -> str:
    """The last line that a host's daemon has written."""
    lines = host.log.read_text(errors="replace").splitlines() if host.log.exists() else []
    return lines[-1] if lines else "it has written nothing"
