"""Certificates are renewed in time, through days of virtual time; and what a node does when that failed."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cluster.errors import Unavailable
from cluster.identity import Identity, create_csr
from cluster.joining import RenewAnswer
from cluster.messages import ManagerAddress
from cluster.seams import SECOND
from cluster.spec import CAConfig, ClusterSpec
from cluster.states import Role
from manager.ca.authority import found_cluster, sign
from manager.ca.root import trusted
from shoal.daemon import renewal
from shoal.daemon.membership import Membership, MembershipStore
from shoal.daemon.renewal import EXPIRED_RETRY, RENEW_RETRY, Renewal

HOUR = 3600 * SECOND
STEP = 5.0


class Time:
    """The loop's own time, which moves when nothing else happens; and a clock that agrees with it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        return 1_800_000_000 * SECOND + int(self.seconds * SECOND)

    def monotonic(self) -> int:
        return int(self.seconds * SECOND)

    async def sleep(self, nanoseconds: int) -> None:
        await asyncio.sleep(nanoseconds / SECOND)

    async def pass_by(self, hours: float) -> None:
        until = self.seconds + hours * 3600
        while self.seconds < until:
            for _ in range(4):
                await asyncio.sleep(0)
            self.seconds += STEP


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Time]:
    loop, made = asyncio.get_running_loop(), Time()
    start, real = loop.time(), loop.time
    monkeypatch.setattr(loop, "time", lambda: start + made.seconds)
    yield made
    monkeypatch.setattr(loop, "time", real)


class Node(Renewal):
    """The part of SwarmNode that renews, with a cluster that is a function of the time."""

    def __init__(self, root: Path, time: Time, role: Role) -> None:
        self.cluster = found_cluster(
            ClusterSpec(ca_config=CAConfig(node_cert_expiry=HOUR)), clock=time, rng=random.Random(1)
        )
        self.away = False
        self.renewed: list[int] = []
        self.tries: list[int] = []
        self.reloaded = self.reconnected = 0
        self._clock, self._rng, self._lock = time, random.Random(2), asyncio.Lock()
        self._wishes = asyncio.Queue()
        self._store = MembershipStore(root / "swarm")
        key, csr = create_csr()
        certificate = sign(self.cluster, csr, node_id="n1", role=role, now=time.now())
        self._store.save_identity(Identity(certificate, key, self.cluster.root_ca.certificate))
        self._membership = Membership(
            node_id="n1",
            cluster_id=self.cluster.id,
            role=role,
            listen_address="",
            advertise_address="192.0.2.1:2377",
            data_path_address="192.0.2.1",
            managers=(ManagerAddress("m", "192.0.2.9:2377"),),
        )
        self._manager: Any = SimpleNamespace(reload=self._reload)
        self._agents: Any = SimpleNamespace(reconnect=self._reconnect)
        self._proxy: Any = SimpleNamespace(attached=role is Role.MANAGER, call=self._own_manager)
        self.role = role

    def _reload(self) -> None:
        self.reloaded += 1

    def _reconnect(self) -> None:
        self.reconnected += 1

    def issue(self, csr: bytes) -> RenewAnswer:
        now = self._clock.now()
        self.renewed.append(now)
        certificate = sign(self.cluster, csr, node_id="n1", role=self.role, now=now)
        root = trusted(self.cluster.root_ca).decode()
        return RenewAnswer(role=self.role, certificate=certificate.decode(), root_ca=root, managers=())

    async def _own_manager(self, method: str, path: str, body: Any) -> Any:
        assert (method, path) == ("POST", "/internal/renew")
        return msgspec.to_builtins(self.issue(body["csr"].encode()))

    async def renew(self, identity: Identity, managers: Sequence[str], *, clock: Time) -> Any:
        """Stands for shoal.daemon.join.renew."""
        self.tries.append(clock.now())
        assert managers == ["192.0.2.9:2377"]
        if self.away:
            raise Unavailable("no manager answers")
        key, csr = create_csr()
        answer = self.issue(csr)
        return Identity(answer.certificate.encode(), key, answer.root_ca.encode()), answer


@contextmanager
def patched(monkeypatch: pytest.MonkeyPatch, node: Node) -> Iterator[None]:
    monkeypatch.setattr(renewal, "renew", node.renew)
    running = asyncio.ensure_future(node.run())
    yield
    running.cancel()


async def test_in_the_second_half_of_its_life_and_again_and_again(
    time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, begun = Node(tmp_path, time, Role.WORKER), time.now()
    with patched(monkeypatch, node):
        await time.pass_by(8)
        ages = [later - earlier for earlier, later in zip([begun, *node.renewed], node.renewed, strict=False)]
        assert 10 <= len(ages) <= 16
        assert all(0.5 * HOUR <= age <= 0.8 * HOUR + 2 * STEP * SECOND for age in ages)
        assert len(set(ages)) > 5  # no two nodes do it at the same time for long
        assert node._store.peer().not_after > time.now()
        assert (node.reloaded, node.reconnected) == (len(ages), len(ages))
        # `swarm update --cert-expiry` counts from the next one on.
        spec = replace(node.cluster.spec, ca_config=CAConfig(node_cert_expiry=6 * HOUR))
        node.cluster = replace(node.cluster, spec=spec)
        node.renewed.clear()
        await time.pass_by(12)
        assert 2 <= len(node.renewed) <= 5
        ages = [later - earlier for earlier, later in zip(node.renewed, node.renewed[1:], strict=False)]
        assert all(3 * HOUR <= age <= 4.8 * HOUR + 2 * STEP * SECOND for age in ages)


async def test_managers_that_do_not_answer_are_asked_until_it_is_too_late(
    time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, time, Role.WORKER)
    node.away = True
    with patched(monkeypatch, node):
        await time.pass_by(0.95)
        assert node.expired == ""
        gaps = {later - earlier for earlier, later in zip(node.tries, node.tries[1:], strict=False)}
        assert len(node.tries) > 10
        assert max(gaps) <= RENEW_RETRY + 2 * STEP * SECOND
        await time.pass_by(0.1)
        assert "run `docker swarm join-token worker` on a manager" in node.expired
        node.away = False  # as in reality: with an expired one nobody would answer, but here they do
        await time.pass_by(0.05)
        assert node.expired == ""


async def test_a_wish_that_was_repeated_while_nobody_could_sign_is_one(
    time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, time, Role.WORKER)
    node.away = True
    with patched(monkeypatch, node):
        for _ in range(20):
            node.role_changed("worker")
            await time.pass_by(10 / 3600)
        assert len(node.tries) > 5
        node.away = False
        await time.pass_by(0.1)
        assert len(node.renewed) == 1


async def test_a_manager_that_was_off_for_too_long_helps_itself(
    time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, time, Role.MANAGER)
    time.seconds += 100 * 3600
    with patched(monkeypatch, node):
        await time.pass_by(2 * EXPIRED_RETRY / HOUR)
        assert node.tries == []  # nobody else was asked
        assert len(node.renewed) == 1
        assert node._store.peer().not_after > time.now()
        assert node.reloaded == 1
