"""Wires the parts of one node together and runs them until SIGTERM."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from cluster import generic_resources
from cluster.ids import new_id
from cluster.seams import SystemClock, system_random
from manager.guard import Bounds, Guard, calm_accepts
from netplane.plane import NetPlane
from shoal.daemon import cluster_api, listeners, metrics, trace_api
from shoal.daemon.agent_runner import AgentRunner
from shoal.daemon.attachments import Attachments
from shoal.daemon.config import DaemonConfig, api_ports
from shoal.daemon.events_api import ClusterEvents, EventsAPI, LocalEvents, Source
from shoal.daemon.manager_account import manager_account
from shoal.daemon.manager_files import ManagersFiles
from shoal.daemon.manager_watch import ManagerWatch
from shoal.daemon.membership import MembershipStore
from shoal.daemon.networks_api import NetworksAPI
from shoal.daemon.proxy import ManagerProxy
from shoal.daemon.swarm_node import SwarmNode
from shoal.daemon.systemd import Systemd
from worker.api import auth, container_commit, containers, disk_usage, images, system, volumes
from worker.api.http import Handler, add_common_headers, errors_middleware, split_version
from worker.container_logs import ContainerLogs
from worker.containers.containers import Containers
from worker.engine import Engine
from worker.health import HealthSupervisor
from worker.images.store import ImageStore
from worker.images.transport import HttpTransport
from worker.node import Machine, shoal_version
from worker.runtime.model import LogConfig
from worker.runtime.oci import OCIRuntime
from worker.runtime.rootfs import remove_tree
from worker.telling import tell_events
from worker.volumes.store import VolumeStore

log = logging.getLogger("shoal.daemon")

STREAMS = frozenset({"/images/load", "/shoal/cluster/restore"})
"""What takes bodies of any size, and reads them piece by piece. All others are JSON."""
OPEN_FILES_SHARE = 0.25
"""Of the files that shoald may open, for clients of the API."""


class Daemon:
    """One shoald."""

    def __init__(self, config: DaemonConfig, open_files: int | None = None) -> None:
        """`open_files`: the soft limit of open files for containers; None: this process's own."""
        self._config = config
        self._open_files = open_files
        self._clock = SystemClock()
        self._rng = system_random()
        self._systemd = Systemd(os.environ, self._clock)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Containers, their network and their traffic go on afterwards."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        calm_accepts(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            engine = await self._engine(stack)
            tell_events(engine)
            store = MembershipStore(engine.data_root / "swarm")
            agents = AgentRunner(engine, store, self._clock, self._rng)
            engine = replace(engine, cluster_networks=lambda: agents.networks)
            proxy = ManagerProxy()
            node = SwarmNode(
                store,
                agents,
                proxy,
                ManagersFiles(
                    store,
                    Path(self._config.exec_root).absolute() / "manager" / "manager.sock",
                    manager_account(self._config.manager_user),
                ),
                (f"--log-level={self._config.log_level}", f"--log-format={self._config.log_format}"),
                self._clock,
                self._rng,
                self._config.advertise_addr,
            )
            stack.push_async_callback(node.stop)
            await node.start()
            guard = Guard(Bounds().within(OPEN_FILES_SHARE))
            attachments = Attachments(engine, store, lambda: node.membership, self._clock)
            standalone = Containers(engine, self._clock, self._rng, attachments)
            app = self._app(engine, standalone, node, proxy, guard)
            await listeners.serve(app, self._config, stack, guard)
            if self._config.metrics_addr:
                await metrics.serve(engine, self._config.metrics_addr, stack)
            log.info("shoald is up", extra={"data_root": str(engine.data_root)})
            health = HealthSupervisor(engine.runtime, self._clock)
            watch = ManagerWatch(lambda: node.manager_pid, proxy, self._clock)
            self._systemd.ready()
            telling = self._systemd.run(watch.well, lambda: _status(engine, node))
            try:
                await _until(
                    stop,
                    node.run(),
                    node.follow_address(),
                    health.run(),
                    standalone.run(),
                    attachments.run(),
                    agents.failed,
                    watch.run(),
                    telling,
                )
            finally:
                self._systemd.stopping()
            log.info("shoald stops; containers run on")

    async def _engine(self, stack: AsyncExitStack) -> Engine:
        config = self._config
        data, run = Path(config.data_root).absolute(), Path(config.exec_root).absolute()
        data.mkdir(parents=True, exist_ok=True, mode=0o711)
        run.mkdir(parents=True, exist_ok=True, mode=0o711)
        machine = Machine.read()
        network = NetPlane(
            state_dir=data / "network",
            run_dir=run / "network",
            node_hostname=machine.hostname,
            clock=self._clock,
            rng=self._rng,
            api_ports=api_ports(config),
            cgroup=config.container_cgroup,
        )
        await network.start()
        stack.push_async_callback(network.stop)
        images = ImageStore(
            data / "images",
            transport=HttpTransport(f"shoal/{shoal_version()}"),
            clock=self._clock,
            insecure_registries=config.insecure_registries,
            mirrors=config.registry_mirrors,
        )
        await images.open()
        stack.push_async_callback(images.close)
        runtime = OCIRuntime(
            data / "containers",
            run / "containers",
            config.container_cgroup,
            clock=self._clock,
            runtime=config.default_runtime,
            open_files=self._open_files,
            default_log=LogConfig(driver=config.log_driver, options=config.log_opts),
            default_init=config.init,
        )
        await runtime.start()
        stack.push_async_callback(runtime.close)
        sweeper = stack.enter_context(ThreadPoolExecutor(1, "sweeper"))
        volume_store = VolumeStore(
            data / "volumes", self._clock, self._rng, sweep=lambda path: _sweep(sweeper, path)
        )
        _hold_volumes(runtime, volume_store)
        logs = ContainerLogs(runtime)
        stack.callback(logs.close)
        return Engine(
            id=self._engine_id(data),
            data_root=data,
            machine=machine,
            images=images,
            runtime=runtime,
            network=network,
            volumes=volume_store,
            logs=logs,
            labels=config.engine_labels,
            generic_resources=generic_resources.parse(config.node_generic_resources),
            default_runtime=config.default_runtime,
            debug=config.log_level == "debug",
            registry_config=self._registry_config(),
        )

    def _app(
        self, engine: Engine, standalone: Containers, node: SwarmNode, proxy: ManagerProxy, guard: Guard
    ) -> web.Application:
        @web.middleware
        async def bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
            path = split_version(request.path)[1]
            imported = path == "/images/create" and "fromSrc" in request.query
            if path in STREAMS or imported or (request.method == "PUT" and path.endswith("/archive")):
                return await handler(request)
            return await guard.with_body(request, handler)

        app = web.Application(
            middlewares=[errors_middleware, bodies], client_max_size=guard.bounds.body_bytes
        )
        app.on_response_prepare.append(add_common_headers)
        system.routes(app, engine, lambda: cluster_api.swarm_info(node, proxy), lambda: node.ping_state)
        containers.routes(app, engine, standalone)
        container_commit.routes(app, engine, standalone)
        images.routes(app, engine)
        volumes.routes(app, engine, lambda: proxy.attached)
        disk_usage.routes(app, engine, self._clock)
        auth.routes(app, engine)
        NetworksAPI(engine, proxy, standalone, self._clock).routes(app)
        trace_api.routes(app, engine.network, proxy)
        sources: list[Source] = [
            ClusterEvents(proxy, engine.id, self._clock),
            LocalEvents(engine.events, engine.id, self._clock),
        ]
        EventsAPI(sources, self._clock).routes(app)
        cluster_api.routes(app, node, proxy)
        return app

    def _engine_id(self, data: Path) -> str:
        path = data / "engine-id"
        if not path.exists():
            path.write_text(new_id(self._rng))
        return path.read_text()

    def _registry_config(self) -> dict[str, object]:
        config = self._config
        return {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
            "InsecureRegistryCIDRs": [
                *(name for name in config.insecure_registries if "/" in name),
                "127.0.0.0/8",  # which always are
            ],
            "IndexConfigs": {
                "docker.io": {
                    "Name": "docker.io",
                    "Mirrors": list(config.registry_mirrors),
                    "Secure": True,
                    "Official": True,
                },
                **{
                    name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
                    for name in config.insecure_registries
                    if "/" not in name
                },
            },
            "Mirrors": list(config.registry_mirrors),
        }


def _status(engine: Engine, node: SwarmNode) -> str:
    """For `systemctl status`."""
    running = sum(state.running for _, state in engine.runtime.list())
    return f"swarm {node.ping_state}; containers running: {running}"


def _sweep(sweeper: ThreadPoolExecutor, path: Path) -> None:
    sweeper.submit(remove_tree, path).add_done_callback(_swept)


def _swept(done: "Future[None]") -> None:
    if (error := done.exception()) is not None:
        log.error("can't remove a volume's files", extra={"error": str(error)})


def _hold_volumes(runtime: OCIRuntime, store: VolumeStore) -> None:
    """Which container uses which volume is known from the containers only."""
    for config, _ in runtime.list():
        for mount in config.mounts:
            if mount.volume_name:
                store.acquire(mount.volume_name, config.id)


async def _until(stop: asyncio.Event, *work: Awaitable[None]) -> None:
    """Run until `stop` is set; whatever ends before that ends the daemon, with its error."""
    running = [asyncio.ensure_future(part) for part in (stop.wait(), *work)]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            part.result()
    finally:
        for part in running:
            part.cancel()
        await asyncio.wait(running)
