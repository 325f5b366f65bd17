"""The manager process of a simulated node: the real core and Raft, on simulated parts."""

import asyncio
import traceback
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from aiohttp import web

from cluster.errors import ShoalError
from cluster.objects import Cluster
from cluster.states import Role
from manager.api.app import engine_app
from manager.core import Core
from manager.dispatcher import PeerIdentity
from manager.raft import Raft
from manager.rpc.server import port_app
from manager.settings import Founding
from tests.simulator.http import Caller, Server, SimLeaderClient
from tests.simulator.loop import PROCESS, Killed, Process
from tests.simulator.network import Certificate, End
from tests.simulator.raft_network import AcceptedSocket, RaftNetwork, manager_channel

if TYPE_CHECKING:
    from tests.simulator.node import SimNode

RAFT = Path("/shoal/raft")


class SimCore(Core):
    """The real core, and what its shell adds for the API."""

    client: SimLeaderClient

    async def forward(self, request: web.Request) -> web.StreamResponse:
        return await self.client.forward(request)

    async def ask_leader(self, method: str, path: str) -> None:
        await self.client.call(method, path)


class _Here:
    """The core of the manager process in which the code runs: one application serves all managers."""

    def __getattr__(self, name: str) -> Any:
        process = PROCESS.get()
        assert process is not None
        return getattr(process.core, name)  # type: ignore[attr-defined]


_apps: list[web.Application] = []


def applications() -> list[web.Application]:
    """The API and the cluster port, made once: their routes are many and all alike."""
    if not _apps:
        here: Any = _Here()
        _apps.extend((engine_app(here), port_app(here)))
        for app in _apps:
            app.freeze()
    return _apps


async def manage(node: "SimNode", process: Process, founding: Cluster | None) -> None:
    """Run a manager as its process does, until it ends; founding: the cluster that begins with it."""
    world, me = node.world, node.certificate()
    random: Random = process.random  # type: ignore[attr-defined]

    def fatal(reason: str) -> None:
        world.story.note(node.name, f"manager fail-stop: {reason.splitlines()[0]}")
        world.checks.fail_stop(node, reason)
        node.end_manager("fail-stop")
        raise Killed

    core = SimCore(node.node_id, node.address, node.clock, random)
    core.key_keeper = node.keys
    process.core = core  # type: ignore[attr-defined]
    witness = world.checks.witness(node, process, core.store)
    raft_network = RaftNetwork(world.network, process, node.host, me)
    raft = Raft(
        node_id=node.node_id,
        cluster_id=world.cluster_id,
        address=node.address,
        directory=RAFT,
        state_machine=witness,
        peers={m.node_id: m.address for m in node.managers} if founding is None else None,
        timing=world.timing,
        limits=world.limits,
        clock=node.clock,
        random=random,
        disk=node.disk.of(process),
        network=raft_network,
        on_fatal=fatal,
        own_thread=False,
        locks=node.keys.locks,
    )
    caller = Caller(world.network, process, node.host, me)
    core.client = SimLeaderClient(node.node_id, core.leader_member, caller, node.clock, core.no_leader)
    process.renewed = lambda now: _renewed(process, raft_network, caller, now)  # type: ignore[attr-defined]
    api, port = applications()
    try:
        async with AsyncExitStack() as stack:
            await core.start(stack, raft, core.client)
            node.core = core
            raft.watch_leadership(lambda leads, term: world.checks.leadership(node, leads, term))
            network = world.network

            def listen(service: str, listener: Any) -> None:
                network.listen(service, node.address, process, me, listener)

            listen("raft", lambda end: raft.accept(AcceptedSocket(end)))  # type: ignore[arg-type]
            listen("http", _server(port, process))
            listen("session", _sessions(core, process))
            if founding is not None:
                await core.found(founding, Founding())
            else:
                await core.ensure_member({m.node_id: m.address for m in node.managers}, caller.post)
            listen("api", _server(api, process))
            world.story.note(node.name, "manager ready")
            process.start(world.checks.follow(node, process, core.store), "watcher")
            await core.lead_until(asyncio.Event(), caller.post)
    except (ShoalError, OSError, TimeoutError) as error:
        process.check()
        world.checks.manager_ended(node, error)
        node.end_manager(f"ended: {type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - a defect: a controller died
        process.check()
        world.checks.violated(f"{node.name}: the manager died of {traceback.format_exc()}")
        node.end_manager(f"died: {error!r}")


def _renewed(process: Process, raft_network: RaftNetwork, caller: Caller, now: Certificate) -> None:
    """The node has another certificate: as at SIGHUP."""
    caller.network.renewed(process, now)
    raft_network.renewed(now)
    caller.certificate = now


def _server(app: web.Application, process: Process) -> Any:
    return lambda end: end.attach(Server(app, process, end))


def _sessions(core: SimCore, process: Process) -> Any:
    def accept(end: End) -> None:
        certificate = end.certificate
        cluster = core.store.view().cluster()
        der = str(certificate.held.root).encode() if certificate.held is not None else b""
        who = PeerIdentity(certificate.node_id, Role(certificate.role), end.peer_host, der)
        if certificate.cluster_id != core.cluster_id or cluster is None:
            end.abort()
            return
        process.start(core.sessions().serve(who, manager_channel(end)), "session")

    return accept
