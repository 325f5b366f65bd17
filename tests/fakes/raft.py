"""Certificates, a recording state machine and a small TLS cluster for tests of Raft."""

import asyncio
import datetime
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from manager.port import ClusterPort
from manager.raft import NotLeader, OutcomeUnknown, Raft, RaftLimits, RaftTiming, TlsMaterial

CLUSTER = "testcluster"


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A root that signs node certificates: EC P-256, CN node, OU role, O cluster."""

    def __init__(self, cluster_id: str = CLUSTER) -> None:
        self.cluster_id = cluster_id
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
        certificate = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.pem = certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=30))
        )

    def issue(self, node_id: str, role: str = "swarm-manager", cluster_id: str | None = None) -> TlsMaterial:
        """A certificate and everything needed to use it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id or self.cluster_id),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, node_id),
            ]
        )
        certificate = self._builder(subject, key.public_key()).sign(self._key, hashes.SHA256())
        return TlsMaterial(certificate.public_bytes(serialization.Encoding.PEM), _pem_key(key), self.pem)


class Recorder:
    """A state machine that remembers the entries it applied."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.restored_at: list[int] = []

    def apply(self, index: int, entry: bytes) -> object:
        self.entries.append(entry)
        return len(self.entries)

    def snapshot(self) -> Iterator[bytes]:
        return iter(list(self.entries))

    def restoring(self, index: int, chunks: Iterator[bytes]) -> Iterator[None]:
        entries = []
        for chunk in chunks:
            entries.append(chunk)
            yield
        self.entries = entries
        self.restored_at.append(index)


class Member:
    """One manager: Raft behind a ClusterPort on loopback."""

    def __init__(self, cluster: "TlsCluster", node_id: str) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.directory = cluster.directory / node_id
        self.recorder = Recorder()
        self.fatal: list[str] = []
        self.port: ClusterPort | None = None
        self.raft: Raft | None = None
        self.address = "127.0.0.1:0"
        self.tls = cluster.authority.issue(node_id)

    @property
    def live(self) -> Raft:
        assert self.raft is not None
        return self.raft

    async def start(self, peers: dict[str, str] | None = None, force_new_cluster: bool = False) -> Raft:
        """Listen and start; a restart keeps the port (unless `address` was set back) and the directory."""
        self.port = ClusterPort("127.0.0.1", int(self.address.rsplit(":", 1)[1]), self._accept, self._refuse)
        await self.port.start()
        self.address = f"127.0.0.1:{self.port.address[1]}"
        self.recorder = Recorder()
        self.raft = Raft(
            node_id=self.node_id,
            cluster_id=CLUSTER,
            address=self.address,
            directory=self.directory,
            state_machine=self.recorder,
            tls=self.tls,
            peers=peers,
            timing=RaftTiming.local(),
            limits=self.cluster.limits,
            on_fatal=self.fatal.append,
            force_new_cluster=force_new_cluster,
        )
        await self.raft.start()
        return self.raft

    def _accept(self, sock) -> None:
        if self.raft is None:
            sock.close()
        else:
            self.raft.accept(sock)

    @staticmethod
    def _refuse(sock) -> None:
        sock.close()

    async def stop(self) -> None:
        """Stop without a word to the others, as a killed process would."""
        if self.port is not None:
            await self.port.stop()
        if self.raft is not None:
            await self.raft.stop()
        self.raft = self.port = None


class TlsCluster:
    """Members that know each other over real TLS on loopback."""

    def __init__(self, directory: Path, limits: RaftLimits | None = None) -> None:
        self.directory = directory
        self.limits = limits or RaftLimits()
        self.authority = Authority()
        self.members: dict[str, Member] = {}

    async def grow(self, size: int) -> None:
        """Found a cluster with n1 and let n2... join."""
        for number in range(1, size + 1):
            await self.join(f"n{number}")

    async def join(self, node_id: str) -> Member:
        """Start a node and make it a member."""
        member = Member(self, node_id)
        leader = await self.leader() if self.members else None
        await member.start(dict(leader.live.members) if leader is not None else None)
        self.members[node_id] = member
        if leader is None:
            await self.leader()
        else:
            await self.retry(lambda raft: raft.add_member(node_id, member.address))
        await self.meshed()
        return member

    async def meshed(self) -> None:
        """Wait until every running member is connected to all others that run."""
        ids = {member.node_id for member in self.running()}
        async with asyncio.timeout(30):
            while not all(
                ids - {member.node_id}
                <= {peer.node_id for peer in member.live.status().peers if peer.connected}
                for member in self.running()
            ):
                await asyncio.sleep(0.01)

    def running(self) -> list[Member]:
        return [member for member in self.members.values() if member.raft is not None]

    async def leader(self) -> Member:
        """The member that leads, once a read barrier proves it."""
        async with asyncio.timeout(15):
            while True:
                for member in self.running():
                    if member.live.is_leader:
                        try:
                            await member.live.read_barrier()
                        except NotLeader:
                            continue
                        return member
                await asyncio.sleep(0.01)

    async def retry(self, work):
        """Do something on whoever leads, again if leadership moved."""
        while True:
            leader = await self.leader()
            try:
                return await work(leader.live)
            except (NotLeader, OutcomeUnknown):
                continue

    async def propose(self, entry: bytes):
        return await self.retry(lambda raft: raft.propose(entry))

    async def converge(self) -> list[bytes]:
        """Wait until every running member has applied what the leader has; returns the leader's entries."""
        leader = await self.leader()
        index = await leader.live.read_barrier()
        for member in self.running():
            await member.live.wait_applied(index, timeout=10_000_000_000)
        for member in self.running():
            assert member.recorder.entries == leader.recorder.entries
        return leader.recorder.entries

    async def stop(self) -> None:
        for member in self.running():
            await member.stop()
