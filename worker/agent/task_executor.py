"""Runs tasks on this machine: composes images, volumes, network plane and runtime."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from msgspec.structs import replace

from cluster.dataplane import NetworkRecord, Protocol
from cluster.errors import NotFound, ShoalError
from cluster.objects import Config, ContainerStatus, NodeDescription, Secret, Task
from cluster.publish_at import places
from cluster.seams import Clock
from cluster.spec import ContainerSpec, PortConfig
from netplane.model import DNS, Attachment, HostPort, Mode, SandboxSpec
from netplane.plane import NetPlane
from worker.agent.container import (
    NetworkFiles,
    container_config,
    container_id,
    extra_hosts,
    filled_mount,
    hostname,
    own_environment,
    task_id_of,
)
from worker.agent.executor import Ended, Found, Started, TaskFailed, TaskRejected
from worker.agent.files import TaskFiles
from worker.agent.pull_errors import told
from worker.agent.template import Template
from worker.images.auth import RegistryAuth
from worker.images.model import Image
from worker.images.reference import Reference
from worker.images.store import ImageStore
from worker.interface_options import interface_options
from worker.runtime.model import ContainerState, HealthStatus, MountPoint
from worker.runtime.model import ContainerStatus as RuntimeStatus
from worker.runtime.runtime import Change, Runtime
from worker.volumes.mounts import resolve_mounts
from worker.volumes.store import VolumeStore

BRIDGE, HOST, NONE, OVERLAY = "bridge", "host", "null", "overlay"


class TaskExecutor:
    """Implements `executor.Executor`."""

    def __init__(
        self,
        *,
        images: ImageStore,
        runtime: Runtime,
        network: NetPlane,
        volumes: VolumeStore,
        networks: Callable[[], Mapping[str, NetworkRecord]],
        secrets: Callable[[], Mapping[str, Secret]],
        configs: Callable[[], Mapping[str, Config]],
        describe: Callable[[], NodeDescription],
        clock: Clock,
    ) -> None:
        self._images = images
        self._runtime = runtime
        self._network = network
        self._volumes = volumes
        self._networks = networks
        self._secrets = secrets
        self._configs = configs
        self._describe = describe
        self._clock = clock
        self._ports: dict[str, tuple[PortConfig, ...]] = {}

    async def prepare(self, task: Task) -> None:
        """Image, network namespace, container."""
        spec = task.spec.container_spec
        if spec is None:
            raise TaskRejected("the task has no container to run")
        template = Template(task, self._describe())
        image = await self._image(task, spec.image)
        try:
            await self._clear(container_id(task.id))
            variables = {k: v for k, v in own_environment(spec, template).items() if v is not None}
            files = TaskFiles(task, self._secrets(), self._configs(), variables, template).in_memory()
            mounts = await self._resolve_mounts(task, spec, image, template)
            network = await self._sandbox(task, spec, template)
            config = container_config(task, image, network, mounts, files, template, self._clock.now())
            await self._runtime.create(config)
        except OSError as error:
            await self._discard(task)
            raise TaskRejected(f"preparing the container: {error}") from error
        except BaseException:
            # Also when cancelled: whoever prepares again starts from nothing.
            await asyncio.shield(self._discard(task))
            raise

    async def start(self, task: Task) -> Started:
        """Start the container."""
        identifier = container_id(task.id)
        state = self._state(identifier)
        if state is None:
            raise TaskFailed("the container is gone")
        if not state.running:
            try:
                await self._runtime.start_container(identifier)
            except ShoalError as error:
                await self._network.remove_sandbox(identifier)
                raise TaskFailed(str(error), self._container_status(identifier)) from error
        return Started(self._container_status(identifier), self._ports.get(task.id, ()))

    async def healthy(self, task: Task) -> bool:
        """Wait for the health check's first verdict."""
        identifier = container_id(task.id)
        if not self._checked(identifier):
            return True
        async for state in self._states(identifier):
            if not state.running:
                ended = await self.wait(task)
                raise TaskFailed(ended.error or f"task: exit ({state.exit_code})", ended.container)
            if state.health.status in (HealthStatus.NONE, HealthStatus.HEALTHY):
                return True
            if state.health.status is HealthStatus.UNHEALTHY:
                return False
        raise TaskFailed("the container is gone")

    async def unhealthy(self, task: Task) -> None:
        """Return once the health check fails; take the task out of this node's balancer at once."""
        identifier = container_id(task.id)
        if not self._checked(identifier):
            await asyncio.Event().wait()
        async for state in self._states(identifier):
            if state.health.status is HealthStatus.UNHEALTHY:
                await self._network.withdraw(identifier)
                return
        await asyncio.Event().wait()

    async def wait(self, task: Task) -> Ended:
        """Wait for the end; the network goes with it, the container stays for its logs."""
        identifier = container_id(task.id)
        state = await self._runtime.wait(identifier)
        await self._network.remove_sandbox(identifier)
        return Ended(self._container_status(identifier), _error(state))

    async def stop(self, task: Task) -> Ended:
        """Withdraw, signal, wait."""
        identifier = container_id(task.id)
        state = self._state(identifier)
        if state is None:
            await self._network.remove_sandbox(identifier)
            return Ended(ContainerStatus(container_id=identifier))
        if state.running:
            await self._network.withdraw(identifier)
            spec = task.spec.container_spec or ContainerSpec()
            grace = self._runtime.get(identifier)[0].stop_grace_ns
            await self._runtime.stop(
                identifier, grace if spec.stop_grace_period is None else spec.stop_grace_period
            )
            state = await self._runtime.wait(identifier)
        await self._network.remove_sandbox(identifier)
        return Ended(self._container_status(identifier), _error(state))

    async def remove(self, task: Task) -> None:
        """Remove everything of the task."""
        await self._discard(task)
        self._ports.pop(task.id, None)

    async def find(self, task: Task) -> Found:
        """What there is after a restart."""
        state = self._state(container_id(task.id))
        if state is None:
            return Found.NOTHING
        if state.running:
            return Found.RUNNING
        return Found.CREATED if state.status is RuntimeStatus.CREATED else Found.ENDED

    def remains(self) -> Sequence[str]:
        """From the containers' labels."""
        return [task_id for config, _ in self._runtime.list() if (task_id := task_id_of(config))]

    # --- parts --------------------------------------------------------------------------------------------

    async def _image(self, task: Task, name: str) -> Image:
        """The image, pulled unless it is here.

        A service's image is pinned to a digest by the client when the registry answers, so a plain tag that
        is here already was meant as it is here; a registry that is away must not stop a failover.
        """
        reference = Reference.parse(name)
        try:
            return self._images.get(name)
        except NotFound:
            pass
        auth = None
        try:
            auth = credential(task, reference)
            return await self._images.pull(name, auth=auth)
        except (ShoalError, OSError) as error:
            raise TaskRejected(told(error, reference.familiar, auth, task.service_name)) from error

    async def _sandbox(self, task: Task, spec: ContainerSpec, template: Template) -> NetworkFiles:
        networks = self._networks()
        drivers = {a.network_id: _driver(networks, a.network_id) for a in task.networks}
        names = {id: record.name for id, record in networks.items()}
        identifier = container_id(task.id)
        mode = Mode.PRIVATE
        if HOST in drivers.values():
            mode = Mode.HOST
        elif NONE in drivers.values():
            mode = Mode.NONE
        attachments = tuple(
            Attachment(
                # The predefined one is each node's; others of the driver are made for the cluster.
                network_id=BRIDGE if names.get(a.network_id) == BRIDGE else a.network_id,
                address=a.addresses[0] if a.addresses else "",
                aliases=a.aliases,
                **interface_options(a.driver_opts),
            )
            for a in task.networks
        ) or (Attachment(network_id=BRIDGE),)
        dns = spec.dns_config
        ports = [
            port
            for port in (task.endpoint.spec.ports or () if task.endpoint else ())
            if port.publish_mode == "host"
        ]
        sandbox = await self._network.create_sandbox(
            SandboxSpec(
                id=identifier,
                hostname=hostname(spec, template, identifier),
                mode=mode,
                attachments=attachments if mode is Mode.PRIVATE else (),
                host_ports=tuple(
                    HostPort(
                        protocol=Protocol(port.protocol),
                        published=port.published_port,
                        target=port.target_port,
                        at=places(task.service_labels, port.protocol, port.published_port),
                    )
                    for port in ports
                )
                if mode is Mode.PRIVATE
                else (),
                dns=DNS(
                    servers=tuple(dns.nameservers or ()) if dns else (),
                    search=tuple(dns.search or ()) if dns else (),
                    options=tuple(dns.options or ()) if dns else (),
                ),
                task_id=task.id,
                service_id=task.service_id,
                extra_hosts=extra_hosts(spec),
            )
        )
        self._ports[task.id] = tuple(
            replace(port, published_port=bound.published)
            for port, bound in zip(ports, sandbox.ports, strict=False)
        )
        return NetworkFiles(
            netns=str(sandbox.netns or ""),
            resolv_conf=sandbox.resolv_conf,
            hosts=sandbox.hosts,
            hostname=self._describe().hostname,
        )

    async def _resolve_mounts(
        self, task: Task, spec: ContainerSpec, image: Image, template: Template
    ) -> tuple[MountPoint, ...]:
        mounts = [filled_mount(mount, template) for mount in spec.mounts or ()]
        images = {
            mount.source: await self._image(task, mount.source) for mount in mounts if mount.type == "image"
        }
        try:
            return resolve_mounts(container_id(task.id), mounts, image.config.volumes, self._volumes, images)
        except ShoalError as error:
            raise TaskRejected(str(error)) from error

    async def _states(self, identifier: str) -> AsyncIterator[ContainerState]:
        """The container's state now, then each change, until it is removed."""
        changes = self._runtime.watch()
        state = self._state(identifier)
        while state is not None:
            yield state
            state = await _next_of(changes, identifier)

    async def _discard(self, task: Task) -> None:
        identifier = container_id(task.id)
        await self._clear(identifier)
        self._volumes.release(identifier, remove_anonymous=True)

    async def _clear(self, identifier: str) -> None:
        try:
            if self._state(identifier) is not None:
                await self._runtime.remove(identifier, force=True)
        finally:
            await self._network.remove_sandbox(identifier)

    def _checked(self, identifier: str) -> bool:
        return self._runtime.get(identifier)[0].healthcheck is not None

    def _state(self, identifier: str) -> ContainerState | None:
        try:
            return self._runtime.get(identifier)[1]
        except NotFound:
            return None

    def _container_status(self, identifier: str) -> ContainerStatus:
        state = self._state(identifier)
        if state is None:
            return ContainerStatus(container_id=identifier)
        return ContainerStatus(
            container_id=identifier,
            pid=state.pid,
            exit_code=state.exit_code,
            addresses=self._own_addresses(identifier),
        )

    def _own_addresses(self, identifier: str) -> dict[str, tuple[str, ...]]:
        """The addresses that this node gave, in networks of the cluster that leave them to the nodes."""
        sandbox = self._network.sandboxes().get(identifier)
        networks = self._networks()
        found: dict[str, tuple[str, ...]] = {}
        for network_id, address in sandbox.addresses.items() if sandbox is not None else ():
            record = networks.get(network_id)
            if record is not None and record.driver != OVERLAY:
                both = (address, sandbox.addresses6.get(network_id, "")) if sandbox is not None else ()
                found[network_id] = tuple(each for each in both if each)
        return found


def credential(task: Task, reference: Reference) -> RegistryAuth | None:
    """What to show the image's registry: the service's credential is for the one that its own image is from,
    and an image that it mounts may be from another. Raises InvalidArgument."""
    own = task.spec.container_spec.image if task.spec.container_spec else ""
    if Reference.parse(own).domain != reference.domain:
        return None
    return RegistryAuth.decode(task.registry_auth)


async def _next_of(changes: AsyncIterator[Change], identifier: str) -> ContainerState | None:
    async for changed, state in changes:
        if changed == identifier:
            return state
    return None


def _driver(networks: Mapping[str, NetworkRecord], network_id: str) -> str:
    record = networks.get(network_id)
    return record.driver if record is not None else ""


def _error(state: ContainerState) -> str:
    if state.oom_killed:
        return f"task: non-zero exit ({state.exit_code}): out of memory"
    return state.error
