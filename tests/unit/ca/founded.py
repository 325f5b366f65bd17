"""A cluster with its first manager, in a store without Raft; and nodes as TLS sees them."""

import random
import ssl

from msgspec.structs import replace

from cluster.identity import Identity, create_csr
from cluster.joining import JoinRequest
from cluster.messages import Hello
from cluster.objects import Cluster, Node, NodeDescription
from cluster.seams import SECOND, SystemClock
from cluster.spec import CAConfig, ClusterSpec, ExternalCA
from cluster.states import Role
from manager.ca.authority import Authority, found_cluster, founding_objects
from manager.ca.external import ExternalCAs, https
from manager.dispatcher.channel import PeerIdentity
from manager.dispatcher.registration import register
from manager.rpc.tls import MANAGER_NAME, client_context, server_context
from manager.store import Store, Transaction
from tests.fakes.proposer import LocalProposer

HOUR = 3600 * SECOND


class Founded:
    """What the leader has."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.rng = random.Random(3)
        self.store = Store(self.clock, self.rng)
        self.proposer = LocalProposer(self.store)
        self.authority = Authority(self.store, self.clock, self.rng)
        self.authority.external = ExternalCAs(https(lambda: self.identities["m1"]))
        spec = ClusterSpec(ca_config=CAConfig(node_cert_expiry=2 * HOUR))
        self.founded = found_cluster(spec, clock=self.clock, rng=self.rng, subnet_size=25)
        self.identities: dict[str, Identity] = {}

    async def begin(self) -> "Founded":
        await self.store.update(
            lambda tx: founding_objects(tx, self.founded, "m1", "10.0.0.1:2377", data_path_address="10.9.0.1")
        )
        await self.renew("m1")
        return self

    @property
    def cluster(self) -> Cluster:
        cluster = self.store.view().cluster()
        assert cluster is not None
        return cluster

    def node(self, id: str) -> Node:
        node = self.store.view().get(Node, id)
        assert node is not None
        return node

    # --- nodes --------------------------------------------------------------------------------------------

    async def join(self, role: Role = Role.WORKER) -> str:
        """A new node; its id."""
        tokens = self.cluster.root_ca.join_tokens
        key, csr = create_csr()
        token = tokens.manager if role is Role.MANAGER else tokens.worker
        answer = await self.authority.admit(JoinRequest(token=token, csr=csr.decode(), address="10.0.0.2"))
        self.identities[answer.node_id] = Identity(answer.certificate.encode(), key, answer.root_ca.encode())
        return answer.node_id

    async def renew(self, node_id: str) -> None:
        key, csr = create_csr()
        answer = await self.authority.renew(self.store.view(), node_id, csr)
        self.identities[node_id] = Identity(answer.certificate.encode(), key, answer.root_ca.encode())

    async def report(self, node_id: str) -> None:
        """Open a session, as the dispatcher writes it."""
        identity = self.identities[node_id]
        der = ssl.PEM_cert_to_DER_cert(identity.certificate.decode().split("-----END")[0] + END)
        peer = PeerIdentity(node_id, self.node(node_id).role, "10.0.0.2", der)
        hello = Hello(description=NodeDescription(), trust_root=identity.root_ca.decode())
        await self.store.update(lambda tx: register(tx, peer, hello))

    # --- the operator -------------------------------------------------------------------------------------

    async def update(self, **ca: object) -> None:
        """`swarm ca`, `swarm update`: the settings as they are, with these about the CA."""
        before = self.cluster
        config = before.spec.ca_config
        assert config is not None
        given = replace(config, **ca)
        settings = replace(before.spec, ca_config=given)
        changed = await self.authority.changed(before, settings, given)

        def write(tx: Transaction) -> None:
            tx.update(changed)

        await self.store.update(write)

    async def rotate(self) -> None:
        """`swarm ca --rotate`."""
        assert self.cluster.spec.ca_config is not None
        count = self.cluster.spec.ca_config.force_rotate
        await self.update(force_rotate=count + 1, signing_ca_cert="", signing_ca_key="")


END = "-----END CERTIFICATE-----\n"


def external(url: str, certificate: str = "") -> list[ExternalCA]:
    """One, as the docker CLI sends it."""
    return [ExternalCA(protocol="cfssl", url=url, ca_cert=certificate)]


def talk(client: Identity, server: Identity) -> None:
    """A TLS handshake between two nodes. Raises ssl.SSLError when either refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = server_context(server)
    context.verify_mode = ssl.CERT_REQUIRED
    serving = context.wrap_bio(to_server, to_client, server_side=True)
    asking = client_context(client).wrap_bio(to_client, to_server, server_hostname=MANAGER_NAME)
    for _ in range(3):
        for side in (asking, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    serving.do_handshake()
    assert serving.getpeercert(binary_form=True)
