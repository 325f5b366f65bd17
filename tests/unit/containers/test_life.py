"""Standalone containers from create to rm, with restarts and daemons that come and go."""

import asyncio
from typing import ClassVar

import pytest

from cluster.errors import Conflict, Forbidden, InvalidArgument, NotFound
from cluster.seams import MILLISECOND, SECOND
from netplane.errors import PortUnavailable
from netplane.model import Attachment, Sandbox
from tests.fakes.clock import settle
from tests.unit.containers.conftest import Node
from worker.containers.attachable import NoCluster
from worker.containers.execs import ExecRequest
from worker.containers.record import record_of
from worker.containers.request import CreateRequest, HostConfig, PortBinding, UpdateRequest
from worker.endpoints import EndpointSettings
from worker.images.errors import NoSuchImage
from worker.runtime.model import ContainerConfig, ContainerStatus


async def test_a_life(node: Node) -> None:
    id, warnings = await node.containers.create("web", CreateRequest(image="busybox"))
    assert warnings == []
    assert node.state("web").status is ContainerStatus.CREATED
    assert await node.containers.start("web")
    assert not await node.containers.start(id[:5])
    assert id in node.network.sandboxes()
    with pytest.raises(Conflict, match="container is running"):
        await node.containers.remove("web")
    assert await node.containers.stop("web", 0)
    assert not await node.containers.stop("web", 0)
    assert id not in node.network.sandboxes()
    await node.containers.remove("web")
    with pytest.raises(NotFound, match="No such container"):
        node.state("web")


async def test_names(node: Node) -> None:
    request = CreateRequest(image="busybox")
    await node.containers.create("/one", request)
    with pytest.raises(Conflict, match='The container name "/one" is already in use'):
        await node.containers.create("one", request)
    for bad in ("-x", "a b", "x", "ä1"):
        with pytest.raises(InvalidArgument, match="Invalid container name"):
            await node.containers.create(bad, request)
    made = [(await node.containers.create("", request))[0] for _ in range(30)]
    assert len({node.containers.find(id)[0].name for id in made}) == 30
    await node.containers.rename("one", "two")
    with pytest.raises(NotFound):
        node.state("one")
    with pytest.raises(InvalidArgument):
        await node.containers.rename("two", "two")


async def test_what_can_not_be_made_leaves_nothing(node: Node) -> None:
    with pytest.raises(NoSuchImage):
        await node.containers.create("web", CreateRequest(image="nothing"))
    bad = HostConfig(binds=["data:/data"], security_opt=["no-such-option=1"])
    with pytest.raises(InvalidArgument, match="security-opt"):
        await node.containers.create("web", CreateRequest(image="busybox", host_config=bad))
    assert not node.engine.volumes.users("data")
    assert node.names() == []
    await node.containers.create("web", CreateRequest(image="busybox"))  # its name is free


async def test_a_start_that_fails(node: Node) -> None:
    with pytest.raises(InvalidArgument, match="executable file not found"):
        await node.run("web", "no-such-command")
    assert node.state("web").exit_code == 127
    assert node.network.sandboxes() == {}
    with pytest.raises(InvalidArgument):
        await node.run("gone", "no-such-command", auto_remove=True)
    assert node.names() == ["web"]


async def test_a_container_that_removes_itself(node: Node) -> None:
    waiting = None
    id = await node.run("brief", "sleep", "5", auto_remove=True, binds=["/anonymous"])
    waiting = asyncio.ensure_future(node.containers.wait(id, "removed"))
    assert len(node.engine.volumes.all()) == 1
    await node.clock.advance(6 * SECOND)
    assert (await waiting).exit_code == 0
    assert node.names() == []
    assert node.engine.volumes.all() == []


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
async def test_restarts_with_growing_delays(node: Node, policy: str) -> None:
    await node.run("web", "sh", "-c", "exit 3", policy=policy)
    for number in range(1, 5):
        assert node.containers.restarting(node.containers.find("web")[0].id)
        assert node.state("web").restarts == number - 1
        await node.clock.advance(100 * MILLISECOND * 2 ** (number - 1))
    await node.containers.stop("web")
    await node.clock.advance(100 * SECOND)
    assert node.state("web").restarts == 4
    assert not node.containers.restarting(node.containers.find("web")[0].id)


async def test_a_policy_that_gives_up(node: Node) -> None:
    await node.run("web", "sh", "-c", "exit 3", policy="on-failure", count=2)
    await node.run("fine", "sh", "-c", "exit 0", policy="on-failure")
    await node.clock.advance(100 * SECOND)
    assert node.state("web").restarts == 2
    assert node.state("web").status is ContainerStatus.EXITED
    assert node.state("fine").restarts == 0


async def test_a_kill_by_the_user_is_no_reason_to_restart(node: Node) -> None:
    await node.run("web", "sleep", "1000", policy="unless-stopped")
    await node.containers.kill("web", 9)
    await node.clock.advance(100 * SECOND)
    assert node.state("web").status is ContainerStatus.EXITED


@pytest.mark.parametrize(("policy", "runs"), [("no", False), ("always", True), ("unless-stopped", False)])
async def test_stopped_containers_and_a_new_daemon(node: Node, policy: str, runs: bool) -> None:
    await node.run("web", "sleep", "1000", policy=policy)
    await node.containers.stop("web", 0)
    await node.reborn()
    assert node.state("web").running is runs


async def test_containers_that_ended_without_a_daemon(node: Node) -> None:
    await node.run("again", "sleep", "5", policy="unless-stopped")
    await node.run("gone", "sleep", "5", auto_remove=True)
    await node.run("stays", "sleep", "5")
    await node.run("lives", "sleep", "1000")
    await node.containers.create("new", CreateRequest(image="busybox", host_config=HostConfig()))
    await node.end()
    await node.clock.advance(6 * SECOND)
    await node.reborn()
    assert node.names() == ["again", "lives", "new", "stays"]
    assert node.state("again").running
    assert not node.state("stays").running
    assert {node.containers.find(name)[0].id for name in ("again", "lives")} == set(node.network.sandboxes())


async def test_restart_keeps_what_removes_itself(node: Node) -> None:
    id = await node.run("web", "sleep", "1000", auto_remove=True)
    await node.containers.restart("web", 0)
    await settle()
    assert node.state(id).running


@pytest.mark.parametrize("condition", ["not-running", "next-exit", "removed"])
async def test_waiting(node: Node, condition: str) -> None:
    id = await node.run("web", "sleep", "5")
    waiting = asyncio.ensure_future(node.containers.wait(id, condition))
    await node.clock.advance(4 * SECOND)
    assert not waiting.done()
    await node.clock.advance(2 * SECOND)
    assert waiting.done() is (condition != "removed")
    await node.containers.remove("web")
    assert (await waiting).exit_code == 0


async def test_waiting_for_the_exit_of_what_has_not_started(node: Node) -> None:
    id, _ = await node.containers.create("web", CreateRequest(image="busybox", cmd=["sh", "-c", "exit 4"]))
    assert (await node.containers.wait(id, "not-running")).exit_code == 0
    waiting = asyncio.ensure_future(node.containers.wait(id, "next-exit"))
    await settle()
    await node.containers.start(id)
    assert (await waiting).exit_code == 4


async def test_ports_of_a_range_are_tried_in_turn(node: Node) -> None:
    node.network.busy = {9000, 9001}
    ports = {"80/tcp": [PortBinding(host_port="9000-9003")]}
    id = await node.run("web", "sleep", "1000", port_bindings=ports)
    assert [port.published for port in node.network.sandboxes()[id].ports] == [9002]
    node.network.busy = {9000, 9001, 9003}
    with pytest.raises(Exception, match="port is already allocated"):
        await node.run("late", "sleep", "1000", port_bindings=ports)


async def test_networks_are_kept_for_the_next_start(node: Node) -> None:
    id = await node.run("web", "sleep", "1000")
    await node.containers.connect(id, "back", EndpointSettings(aliases=("w",)))
    assert node.network.sandboxes()[id].addresses.keys() == {"bridge-id", "back-id"}
    with pytest.raises(Forbidden, match="already exists in network back"):
        await node.containers.connect(id, "back", EndpointSettings())
    assert node.containers.members("back-id") == [id]
    await node.containers.disconnect(id, "bridge", force=False)
    await node.containers.restart(id, 0)
    assert node.network.sandboxes()[id].addresses.keys() == {"back-id"}
    with pytest.raises(InvalidArgument, match="is not connected"):
        await node.containers.disconnect(id, "bridge", force=False)


async def test_changes_at_once_keep_each_other(node: Node) -> None:
    """Each is written with what the others have written while it waited for its turn."""
    id = await node.run("web", "sleep", "1000", policy="always")
    async with node.containers._locks[id]:
        changes = [
            asyncio.ensure_future(change)
            for change in (
                node.containers.connect("web", "back", EndpointSettings()),
                node.containers.update("web", UpdateRequest(memory=128 << 20)),
                node.containers.disconnect("web", "bridge", force=False),
                node.containers.stop("web", 0),
            )
        ]
        await settle()
    await asyncio.gather(*changes)
    record = record_of(node.runtime.get(id)[0])
    assert record is not None
    assert (list(record.endpoints), record.host.memory, record.stopped_by_user) == (
        ["back-id"],
        128 << 20,
        True,
    )


async def test_a_connection_that_fails_gives_its_place_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cluster(NoCluster):
        places: ClassVar[set[str]] = set()

        def knows(self, network_id: str) -> bool:
            return network_id == "back-id"

        async def attach(
            self, container_id: str, network_id: str, settings: EndpointSettings
        ) -> EndpointSettings:
            self.places.add(network_id)
            return settings

        async def detach(self, container_id: str, network_id: str = "") -> None:
            self.places.discard(network_id)

    async def refuse(id: str, attachment: Attachment) -> Sandbox:
        raise PortUnavailable("no more interfaces")

    node.containers._attachable = Cluster()
    id = await node.run("web", "sleep", "1000")
    monkeypatch.setattr(node.network, "attach", refuse)
    with pytest.raises(PortUnavailable):
        await node.containers.connect(id, "back", EndpointSettings())
    assert Cluster.places == set()
    assert node.containers.members("back-id") == []


async def test_commands_that_nobody_started_go_with_their_container(node: Node) -> None:
    execs, request = node.containers.execs, ExecRequest(cmd=["true"])
    await node.run("web", "sleep", "1000")
    await node.run("other", "sleep", "1000")
    gone = execs.create(*node.containers.find("web"), request)
    await node.containers.remove("web", force=True)
    kept = execs.create(*node.containers.find("other"), request)
    execs.create(*node.containers.find("other"), request)
    with pytest.raises(NotFound):
        execs.find(gone)
    assert execs.find(kept).id == kept


async def test_another_containers_network(node: Node) -> None:
    id = await node.run("web", "sleep", "1000")
    other = await node.run("side", "sleep", "1000", network_mode="container:web")
    assert node.runtime.get(other)[0].netns == node.runtime.get(id)[0].netns
    await node.containers.stop("web", 0)
    with pytest.raises(Conflict, match="non running container"):
        await node.run("late", "sleep", "1000", network_mode="container:web")


async def test_updates(node: Node) -> None:
    await node.run("web", "sleep", "1000", memory=64 << 20)
    await node.containers.update("web", UpdateRequest(memory=128 << 20, pids_limit=9))
    limits = node.containers.find("web")[0].resources
    assert (limits.memory, limits.memory_swap, limits.pids) == (128 << 20, 256 << 20, 9)
    with pytest.raises(InvalidArgument, match="Minimum memory limit"):
        await node.containers.update("web", UpdateRequest(memory=1))


async def test_links(node: Node) -> None:
    await node.run("db", "sleep", "1000")
    id = await node.run("web", "sleep", "1000", links=["db:store"])
    config = node.runtime.get(id)[0]
    assert "store:10.0.0.2" in config.hosts
    assert "STORE_NAME=/web/store" in config.env
    await node.containers.unlink("web/store")
    await node.containers.restart("web", 0)
    assert "store" not in node.runtime.get(id)[0].hosts
    with pytest.raises(NotFound):
        await node.containers.unlink("web/store")


async def test_a_tasks_container_is_its_services(node: Node) -> None:
    config = ContainerConfig(id="e" * 64, name="web.1", args=("sleep", "1000"), layers=())
    await node.runtime.create(config)
    with pytest.raises(Conflict, match="started and changed by its service only"):
        await node.containers.start("web.1")
    await node.runtime.start_container(config.id)
    await node.containers.restart("web.1", 0)
    assert not node.state("web.1").running
    await settle()
    assert config.id not in node.containers._locks  # one for each task that ever ended here would stay
