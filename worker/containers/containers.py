"""Standalone containers of this node: made, changed, removed."""

from msgspec.structs import replace

from cluster.errors import Conflict, InvalidArgument, NotFound
from cluster.ids import new_container_id
from worker.containers import links, mounts, networks, settings
from worker.containers.life import standalone
from worker.containers.membership import Membership
from worker.containers.names import check_name, new_name
from worker.containers.record import Record, with_record
from worker.containers.request import CreateRequest, Settings, UpdateRequest
from worker.containers.restart import check_policy
from worker.images.model import Image
from worker.runtime.model import ContainerStatus


class Containers(Membership):
    """The verbs of `docker container`."""

    async def create(self, name: str, request: CreateRequest, platform: str = "") -> tuple[str, list[str]]:
        """Make a container; its id, and warnings. `platform` (os[/arch]) is what its image must be for."""
        if not request.image:
            raise InvalidArgument("no image is named")
        host = settings.normalized(
            request.host_config,
            unified_cgroups=self._engine.machine.cgroup_version == "2",
            default_log=self._runtime.default_log,
        )
        settings.check(request, host, self._engine.machine.cpus)
        check_policy(host.restart_policy, auto_remove=host.auto_remove)
        image = self._engine.images.get(request.image)
        _check_platform(request.image, image, platform)
        completed = settings.completed(_settings_of(request), image.config)
        endpoints = networks.asked_for(request)
        networks.host_ports(completed, host)
        identifier = new_container_id(self._rng)
        name = self._take_name(name)
        try:
            record = Record(
                settings=replace(completed, hostname=self._hostname(request, identifier)),
                host=replace(host, links=links.kept(host.links or (), name, self.find) or None),
                endpoints=endpoints,
            )
            await self._make(identifier, name, image, record)
        finally:
            self._names.discard(name)
        return identifier, settings.warnings(request)

    async def _make(self, identifier: str, name: str, image: Image, record: Record) -> None:
        volumes = self._engine.volumes
        try:
            points = mounts.resolve(
                identifier, record.settings, record.host, volumes, lambda other: self.find(other)[0]
            )
            await self._runtime.create(
                settings.container_config(identifier, name, image, record, points, self._clock.now())
            )
        except BaseException:
            volumes.release(identifier, remove_anonymous=True)
            raise

    def _hostname(self, request: CreateRequest, identifier: str) -> str:
        mode = request.host_config.network_mode
        if request.hostname or mode.startswith(networks.CONTAINER):
            return request.hostname
        if mode == "host" or request.host_config.uts_mode == "host":
            return self._engine.machine.hostname
        return identifier[:12]

    def _take_name(self, wanted: str) -> str:
        owners = {config.name: config.id for config, _ in self._runtime.list()}
        if not wanted:
            name = new_name(self._rng, owners.keys() | self._names)
        else:
            name = check_name(wanted)
            if name in owners or name in self._names:
                raise _taken(name, owners.get(name, "another one that is being made"))
        self._names.add(name)
        return name

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, its anonymous volumes with `volumes`; a running one only with `force`."""
        config, state = self.find(name)
        if not force and state.running:
            how = "paused" if state.status is ContainerStatus.PAUSED else "running"
            raise Conflict(
                f'cannot remove container "{config.name}": container is {how}: stop the container before '
                "removing or force remove"
            )
        if not force and self.restarting(config.id):
            raise Conflict(
                f'cannot remove container "{config.name}": container is restarting: stop the container '
                "before removing or force remove"
            )
        self._restarts.cancel(config.id)
        if state.running:
            await self._runtime.stop(config.id, 0)
        async with self._locks[config.id]:
            await self._remove(config, volumes=volumes)

    async def unlink(self, name: str) -> None:
        """Take a link from a container; `name` is CONTAINER/ALIAS."""
        owner, _, alias = name.strip("/").partition("/")
        id = self.find(owner)[0].id
        async with self._locks[id]:
            config = self._runtime.get(id)[0]
            record = standalone(config)
            left = [text for text in record.host.links or () if links.parse(text).alias != alias]
            if len(left) == len(record.host.links or ()):
                raise NotFound(f"no such link: {name}")
            changed = replace(record, host=replace(record.host, links=left or None))
            await self._runtime.reconfigure(with_record(config, changed))

    async def rename(self, name: str, new: str) -> None:
        """Give a container another name."""
        config, _ = self.find(name)
        if not new:
            raise InvalidArgument("Neither old nor new names may be empty")
        if check_name(new) == config.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        new = self._take_name(new)
        try:
            async with self._locks[config.id]:
                renamed = replace(self._runtime.get(config.id)[0], name=new)
                await self._runtime.reconfigure(renamed)
            self._engine.events.container("rename", renamed, {"oldName": f"/{config.name}"})
        finally:
            self._names.discard(new)

    async def update(self, name: str, request: UpdateRequest) -> None:
        """Change limits, of a running container at once, and the restart policy."""
        id = self.find(name)[0].id
        async with self._locks[id]:
            config = self._runtime.get(id)[0]
            record = standalone(config)
            policy = request.restart_policy or record.host.restart_policy
            check_policy(policy, auto_remove=record.host.auto_remove)
            host = settings.changed_limits(replace(record.host, restart_policy=policy), request)
            settings.check_limits(host, self._engine.machine.cpus)
            wanted = settings.limits(host)
            if wanted != config.resources:
                await self._runtime.update_resources(id, wanted)
            changed = replace(record, host=host)
            await self._runtime.reconfigure(with_record(self._runtime.get(id)[0], changed))
        self._engine.events.container("update", config)


def _settings_of(request: CreateRequest) -> Settings:
    return Settings(**{name: getattr(request, name) for name in Settings.__struct_fields__})


def _taken(name: str, owner: str) -> Conflict:
    return Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def _check_platform(name: str, image: Image, wanted: str) -> None:
    """With dockerd's words, to which the docker command answers with a pull."""
    if not wanted:
        return
    system, _, architecture = wanted.lower().partition("/")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(architecture, architecture).partition("/")[0]
    if system != image.config.os or architecture not in ("", image.config.architecture):
        raise NotFound(
            f"image with reference {name} was found but does not provide the specified platform ({wanted})"
        )
