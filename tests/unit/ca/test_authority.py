"""Founding, admitting, renewing; and roles that follow their spec."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from cluster.errors import Forbidden, InvalidArgument, Unauthorized, Unavailable
from cluster.identity import Identity, check_identity, create_csr, new_join_token
from cluster.joining import JoinRequest
from cluster.objects import ManagerStatus, Node
from cluster.seams import SECOND
from cluster.spec import ClusterSpec, EncryptionConfig, NodeSpec
from cluster.states import Availability, Role
from manager.ca.authority import first_identity, found_cluster, founding_objects, manager_addresses
from manager.ca.roles import RoleManager
from manager.keys.locks import with_autolock
from manager.store import Transaction
from tests.unit.ca.founded import HOUR, Founded


@pytest.fixture
async def founded() -> Founded:
    return await Founded().begin()


def request(token: str, **changes: object) -> tuple[bytes, JoinRequest]:
    key, csr = create_csr()
    return key, replace(JoinRequest(token=token, csr=csr.decode(), address="10.0.0.2"), **changes)


async def test_a_founded_cluster(founded: Founded) -> None:
    assert founded.cluster.subnet_size == 25
    assert founded.cluster.default_address_pool == ("10.0.0.0/8",)
    node = founded.node("m1")
    assert (node.role, node.spec.role, node.data_path_address) == (Role.MANAGER, Role.MANAGER, "10.9.0.1")
    assert node.manager_status == ManagerStatus(address="10.0.0.1:2377")
    assert [m.address for m in manager_addresses(founded.store.view())] == ["10.0.0.1:2377"]
    peer = check_identity(first_identity(founded.cluster, "m1", founded.clock), founded.clock.now())
    assert (peer.role, peer.cluster_id) == (Role.MANAGER, founded.cluster.id)


async def test_the_first_node_is_as_available_as_its_founder_says() -> None:
    founded = Founded()
    await founded.store.update(
        lambda tx: founding_objects(
            tx,
            founded.founded,
            "m1",
            "10.0.0.1:2377",
            data_path_address="",
            availability=Availability.DRAIN,
        )
    )
    assert founded.node("m1").spec.availability is Availability.DRAIN


@pytest.mark.parametrize("role", list(Role))
async def test_a_token_admits_with_its_role(founded: Founded, role: Role) -> None:
    tokens = founded.cluster.root_ca.join_tokens
    token = tokens.manager if role is Role.MANAGER else tokens.worker
    key, wanted = request(token, availability=Availability.DRAIN)
    answer = await founded.authority.admit(wanted)
    assert answer.role is role
    identity = Identity(answer.certificate.encode(), key, answer.root_ca.encode())
    peer = check_identity(identity, founded.clock.now())
    assert (peer.node_id, peer.role, peer.cluster_id) == (answer.node_id, role, answer.cluster_id)
    assert abs(peer.not_after - founded.clock.now() - 2 * HOUR) < 60 * SECOND
    node = founded.node(answer.node_id)
    assert (node.role, node.spec.availability) == (role, Availability.DRAIN)
    assert node.manager_status is None  # a manager has a place in Raft only once it was added
    assert [m.node_id for m in answer.managers] == ["m1"]


async def test_only_managers_are_told_the_unlock_key(founded: Founded) -> None:
    def lock(tx: Transaction) -> None:
        spec = replace(founded.cluster.spec, encryption_config=EncryptionConfig(auto_lock_managers=True))
        tx.update(with_autolock(replace(founded.cluster, spec=spec), founded.rng))

    await founded.store.update(lock)
    key, tokens = founded.cluster.unlock_key, founded.cluster.root_ca.join_tokens
    worker = await founded.authority.admit(request(tokens.worker)[1])
    manager = await founded.authority.admit(request(tokens.manager)[1])
    assert (worker.unlock_key, manager.unlock_key) == ("", key)
    assert manager.lock_version == founded.cluster.version
    for node_id, told in ((worker.node_id, ""), (manager.node_id, key)):
        renewed = await founded.authority.renew(founded.store.view(), node_id, create_csr()[1])
        assert (renewed.unlock_key, renewed.lock_version) == (told, founded.cluster.version)


async def test_each_join_is_a_new_node(founded: Founded) -> None:
    _, wanted = request(founded.cluster.root_ca.join_tokens.worker)
    first, second = [await founded.authority.admit(wanted) for _ in range(2)]
    assert first.node_id != second.node_id


async def test_refused_joins_change_nothing(founded: Founded) -> None:
    before = founded.proposer.index
    own = founded.cluster.root_ca
    stranger = found_cluster(ClusterSpec(), clock=founded.clock, rng=founded.rng).root_ca
    for token, error in (
        (new_join_token(own.certificate, founded.rng), Unauthorized),
        (stranger.join_tokens.manager, Unauthorized),
        ("SWMTKN-1-x", InvalidArgument),
    ):
        with pytest.raises(error):
            await founded.authority.admit(request(token)[1])
    for changes in ({"csr": "junk"}, {"address": ""}):
        with pytest.raises(InvalidArgument):
            await founded.authority.admit(request(own.join_tokens.worker, **changes)[1])
    assert founded.proposer.index == before


async def test_renewal_follows_the_role_and_ends_with_removal(founded: Founded) -> None:
    answer = await founded.authority.admit(request(founded.cluster.root_ca.join_tokens.worker)[1])
    _, csr = create_csr()
    node = founded.node(answer.node_id)
    assert (await founded.authority.renew(founded.store.view(), node.id, csr)).role is Role.WORKER
    await founded.store.update(lambda tx: tx.update(replace(node, role=Role.MANAGER)))
    assert (await founded.authority.renew(founded.store.view(), node.id, csr)).role is Role.MANAGER
    await founded.store.update(lambda tx: tx.delete(Node, node.id))
    with pytest.raises(Forbidden, match="join again"):
        await founded.authority.renew(founded.store.view(), node.id, csr)


# --- roles ----------------------------------------------------------------------------------------------


class Members:
    """Raft's members, and a removal that fails as often as told."""

    def __init__(self) -> None:
        self.now = {"m1": "10.0.0.1:2377"}
        self.failures = 0
        self.asked = 0

    async def remove(self, node_id: str) -> None:
        self.asked += 1
        if self.failures:
            self.failures -= 1
            raise Unavailable("quorum would be lost")
        self.now.pop(node_id)


@pytest.fixture
async def members(founded: Founded) -> AsyncIterator[Members]:
    members = Members()
    manager = RoleManager(founded.store, lambda: members.now, members.remove, founded.clock)
    running = asyncio.create_task(manager.run())
    yield members
    running.cancel()
    await asyncio.wait((running,))


async def set_spec_role(founded: Founded, id: str, role: Role) -> None:
    node = founded.node(id)
    await founded.store.update(lambda tx: tx.update(replace(node, spec=replace(node.spec, role=role))))


async def until_role(founded: Founded, id: str, role: Role) -> None:
    async with asyncio.timeout(5):
        while founded.node(id).role is not role:
            await asyncio.sleep(0.005)


async def test_promotion_and_demotion(founded: Founded, members: Members) -> None:
    await founded.store.update(lambda tx: tx.create(Node(id="m2")))
    await set_spec_role(founded, "m2", Role.MANAGER)
    await until_role(founded, "m2", Role.MANAGER)
    members.now["m2"] = "10.0.0.2:2377"
    members.failures = 1
    await set_spec_role(founded, "m2", Role.WORKER)
    await until_role(founded, "m2", Role.WORKER)
    assert members.asked == 2
    assert "m2" not in members.now
    assert founded.node("m2").manager_status is None


async def test_a_node_demoted_or_removed_while_raft_was_adding_it_is_no_member_for_ever(
    founded: Founded, members: Members
) -> None:
    await founded.store.update(lambda tx: tx.create(Node(id="m2")))
    members.now |= {"m2": "10.0.0.2:2377", "m3": "10.0.0.3:2377"}  # m3: removed by force
    members.failures = 1
    await set_spec_role(founded, "m1", Role.MANAGER)  # any event
    async with asyncio.timeout(10):
        while set(members.now) != {"m1"}:
            await asyncio.sleep(0.005)


async def test_a_demoted_node_stays_a_manager_until_raft_let_it_go(
    founded: Founded, members: Members
) -> None:
    node = Node(id="m2", role=Role.MANAGER)
    await founded.store.update(
        lambda tx: tx.create(replace(node, spec=replace(node.spec, role=Role.MANAGER)))
    )
    members.now["m2"] = "10.0.0.2:2377"
    members.failures = 10**6
    await set_spec_role(founded, "m2", Role.WORKER)
    async with asyncio.timeout(5):
        while members.asked < 2:
            await asyncio.sleep(0.005)
    assert founded.node("m2").role is Role.MANAGER


@pytest.mark.parametrize("field", ["address", "data_path_address"])
@pytest.mark.parametrize("address", ["host1", "10.0.0.1/8", "10.0.0", "10.0.0.2\0", "1" * 5000])
async def test_a_joiner_names_ip_addresses(founded: Founded, field: str, address: str) -> None:
    """Every other node would put it into its kernel."""
    _, wanted = request(founded.cluster.root_ca.join_tokens.worker, **{field: address})
    with pytest.raises(InvalidArgument, match="not an IP address"):
        await founded.authority.admit(wanted)


async def test_after_a_forced_new_cluster_the_other_managers_are_workers_once(founded: Founded) -> None:
    def others(tx: Transaction) -> None:
        for id in ("m2", "m3"):
            tx.create(
                Node(
                    id=id,
                    spec=NodeSpec(role=Role.MANAGER),
                    role=Role.MANAGER,
                    manager_status=ManagerStatus(address=f"{id}:2377"),
                )
            )

    await founded.store.update(others)
    alone = {"m1": "10.0.0.1:2377"}

    async def no_removal(node_id: str) -> None:
        raise AssertionError("they are no members any more")

    async def led() -> None:
        roles = RoleManager(founded.store, lambda: alone, no_removal, founded.clock, lambda: 1)
        running = asyncio.create_task(roles.run())
        await until_role(founded, "m2", Role.WORKER)
        running.cancel()
        await asyncio.wait((running,))

    await led()
    assert founded.cluster.generation == 1
    for id in ("m2", "m3"):
        assert founded.node(id).spec.role is Role.WORKER
        assert founded.node(id).manager_status is None
    # Promoted again, and its vote not yet asked for: the next leader of this generation leaves it alone.
    await set_spec_role(founded, "m3", Role.MANAGER)
    roles = RoleManager(founded.store, lambda: alone, no_removal, founded.clock, lambda: 1)
    running = asyncio.create_task(roles.run())
    await until_role(founded, "m3", Role.MANAGER)
    running.cancel()
    await asyncio.wait((running,))
    assert founded.node("m3").spec.role is Role.MANAGER
