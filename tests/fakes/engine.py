"""One node's engine without a machine: a runtime, an image and networks that are only objects."""

import random
from pathlib import Path
from typing import Any, cast

from cluster.seams import Clock
from cluster.spec import NetworkSpec
from netplane.errors import NetworkNotFound, PortUnavailable
from netplane.model import Attachment, HostPort, LocalNetwork, Mode, Sandbox, SandboxSpec
from tests.fakes.runtime import FakeRuntime
from worker.engine import Engine
from worker.images.config import ImageConfig
from worker.images.errors import NoSuchImage
from worker.images.model import Image
from worker.node import Machine
from worker.volumes.store import VolumeStore


class FakeNetwork:
    """Networks "bridge" and "back"; every sandbox gets the next address. Host ports can be taken once."""

    def __init__(self) -> None:
        self._networks = {
            name: LocalNetwork(f"{name}-id", name, driver, 0, NetworkSpec(name=name))
            for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"), ("back", "bridge"))
        }
        self._sandboxes: dict[str, Sandbox] = {}
        self._next = 1
        self.busy: set[int] = set()

    def networks(self) -> dict[str, LocalNetwork]:
        """By id."""
        return {network.id: network for network in self._networks.values()}

    def network(self, name: str) -> LocalNetwork:
        """By name or id."""
        found = self._networks.get(name.removesuffix("-id"))
        if found is None:
            raise NetworkNotFound(name)
        return found

    def sandboxes(self) -> dict[str, Sandbox]:
        """By id."""
        return self._sandboxes

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """A sandbox with an address in each network."""
        taken = self.busy | {port.published for each in self._sandboxes.values() for port in each.ports}
        if any(port.published in taken for port in spec.host_ports):
            raise PortUnavailable("host port is in use")
        ports = tuple(
            HostPort(port.protocol, port.published or 32768, port.target, port.host_ip)
            for port in spec.host_ports
        )
        netns = None if spec.mode is Mode.HOST else Path("/netns") / spec.id
        addresses = {each.network_id: self._address() for each in spec.attachments}
        sandbox = Sandbox(spec.id, netns, addresses=addresses, ports=ports, hosts="".join(spec.extra_hosts))
        self._sandboxes[spec.id] = sandbox
        return sandbox

    async def remove_sandbox(self, id: str) -> None:
        """None there is no error."""
        self._sandboxes.pop(id, None)

    async def attach(self, id: str, attachment: Attachment) -> Sandbox:
        """One more network."""
        self._sandboxes[id].addresses[attachment.network_id] = self._address()
        return self._sandboxes[id]

    async def detach(self, id: str, network_id: str) -> Sandbox:
        """One network less."""
        del self._sandboxes[id].addresses[network_id]
        return self._sandboxes[id]

    def _address(self) -> str:
        self._next += 1
        return f"10.0.0.{self._next}/24"


class OneImage:
    """A store that has `busybox`."""

    def __init__(self, config: ImageConfig | None = None) -> None:
        self.image = Image(
            id="sha256:" + "ab" * 32,
            repo_tags=("busybox:latest",),
            repo_digests=(),
            config=config or ImageConfig(cmd=("sleep", "1000"), env=("PATH=/bin",)),
            size=1,
            diff_ids=(),
            layers=(Path("/layer"),),
            layer_names=(),
            tagged_at=0,
        )

    def get(self, name: str) -> Image:
        """By name."""
        if not name.startswith("busybox"):
            raise NoSuchImage(name)
        return self.image

    def list(self) -> tuple[Image, ...]:
        """The one."""
        return (self.image,)


class EngineRuntime(FakeRuntime):
    """With the paths that `inspect` shows."""

    def log_path(self, id: str) -> Path:
        """Nothing is there."""
        return Path("/containers") / id / "container.log"

    def etc(self, id: str) -> Path:
        """Nothing is there."""
        return Path("/bundles") / id / "etc"

    def upper(self, id: str) -> Path:
        """Nothing is there."""
        return Path("/containers") / id / "upper"

    def rootfs(self, id: str) -> Path:
        """Nothing is there."""
        return Path("/bundles") / id / "rootfs"

    def attach_path(self, id: str) -> Path:
        """Nothing is there."""
        return Path("/bundles") / id / "attach"


def fake_engine(root: Path, clock: Clock, runtime: FakeRuntime) -> Engine:
    """The parts together; volumes are real directories below `root`."""
    return Engine(
        id="e",
        data_root=root,
        machine=Machine.read(),
        images=cast("Any", OneImage()),
        runtime=cast("Any", runtime),
        network=cast("Any", FakeNetwork()),
        volumes=VolumeStore(root / "volumes", clock, random.Random(1)),
        logs=cast("Any", None),
        labels={},
        default_runtime="crun",
    )
