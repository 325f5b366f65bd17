"""Certificates for nodes: founding a cluster, joining it with a token, renewing."""

from msgspec.structs import replace

from cluster.defaults import node_cert_expiry, stored_cluster
from cluster.errors import Forbidden, InvalidArgument
from cluster.identity import (
    Identity,
    ca_digest,
    ca_issuer,
    check_root_ca,
    create_csr,
    create_root_ca,
    issue_certificate,
    new_join_token,
    parse_join_token,
    token_role,
)
from cluster.ids import new_id
from cluster.joining import JoinAnswer, JoinRequest, RenewAnswer, is_ip
from cluster.messages import ManagerAddress
from cluster.objects import (
    Cluster,
    JoinTokens,
    ManagerStatus,
    Node,
    NodeStatus,
    NodeTLSInfo,
    RootCA,
)
from cluster.seams import Clock, Random
from cluster.spec import ClusterSpec, NodeSpec
from cluster.states import Availability, NodeState, Role
from manager.keys.locks import format_unlock_key, with_autolock
from manager.store import Store, Transaction, View


def found_cluster(
    spec: ClusterSpec,
    *,
    clock: Clock,
    rng: Random,
    default_address_pool: tuple[str, ...] = (),
    subnet_size: int = 0,
    data_path_port: int = 0,
    unlock_key: bytes | None = None,
) -> Cluster:
    """A new cluster with its own root CA and join tokens. Zero and empty mean the defaults.

    unlock_key: for autolock, if the spec asks for it; without one there is a new one.
    """
    certificate, key = create_root_ca(clock.now())
    tokens = JoinTokens(worker=new_join_token(certificate, rng), manager=new_join_token(certificate, rng))
    cluster = Cluster(
        id=new_id(rng),
        spec=stored_cluster(spec),
        root_ca=RootCA(certificate=certificate, key=key, digest=ca_digest(certificate), join_tokens=tokens),
    )
    cluster = replace(
        cluster,
        default_address_pool=default_address_pool or cluster.default_address_pool,
        subnet_size=subnet_size or cluster.subnet_size,
        data_path_port=data_path_port or cluster.data_path_port,
        unlock_key=format_unlock_key(unlock_key) if unlock_key else "",
    )
    return with_autolock(cluster, rng)


def first_identity(cluster: Cluster, node_id: str, clock: Clock) -> Identity:
    """The founding manager's key and certificate."""
    key, csr = create_csr()
    certificate = sign(cluster, csr, node_id=node_id, role=Role.MANAGER, now=clock.now())
    return Identity(certificate=certificate, key=key, root_ca=cluster.root_ca.certificate)


def founding_objects(
    tx: Transaction,
    cluster: Cluster,
    node_id: str,
    address: str,
    *,
    data_path_address: str,
    availability: Availability = Availability.ACTIVE,
) -> None:
    """Write a new cluster's first objects: itself and its first manager."""
    tx.create(cluster)
    host = address.rpartition(":")[0]
    tx.create(
        Node(
            id=node_id,
            spec=NodeSpec(labels={}, role=Role.MANAGER, availability=availability),
            role=Role.MANAGER,
            status=NodeStatus(state=NodeState.UNKNOWN, address=host),
            manager_status=ManagerStatus(address=address),
            data_path_address=data_path_address or host,
            tls=node_tls(cluster),
        )
    )


def sign(cluster: Cluster, csr: bytes, *, node_id: str, role: Role, now: int) -> bytes:
    """A node certificate of this cluster; InvalidArgument when the request is unsound."""
    return issue_certificate(
        (cluster.root_ca.certificate, cluster.root_ca.key),
        csr,
        node_id=node_id,
        role=role,
        cluster_id=cluster.id,
        now=now,
        lifetime=node_cert_expiry(cluster.spec),
    )


class Authority:
    """Admits nodes and renews their certificates, on the store."""

    def __init__(self, store: Store, clock: Clock, rng: Random) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng

    async def admit(self, request: JoinRequest) -> JoinAnswer:
        """A new node, with the role that its token gives. Under a new id each time: a node that was wiped
        and joins again is another one. Raises Unauthorized (token) or InvalidArgument (request).
        """
        token = parse_join_token(request.token)
        if not request.address:
            raise InvalidArgument("the join request must say at which address the node is reached")
        for address in (request.address, request.data_path_address):
            if address and not is_ip(address):
                raise InvalidArgument(f"the join request names {address[:80]!r}, which is not an IP address")
        node_id = new_id(self._rng)
        csr = request.csr.encode()

        def create(tx: Transaction) -> tuple[Cluster, Role, bytes]:
            cluster = tx.cluster()
            assert cluster is not None, "a leader has founded or joined a cluster"
            check_root_ca(token, cluster.root_ca.certificate)
            tokens = cluster.root_ca.join_tokens
            role = token_role(request.token, tokens.worker, tokens.manager)
            certificate = sign(cluster, csr, node_id=node_id, role=role, now=self._clock.now())
            tx.create(
                Node(
                    id=node_id,
                    spec=NodeSpec(labels={}, role=role, availability=request.availability),
                    role=role,
                    status=NodeStatus(state=NodeState.UNKNOWN, address=request.address),
                    data_path_address=request.data_path_address or request.address,
                    tls=node_tls(cluster),
                )
            )
            return cluster, role, certificate

        cluster, role, certificate = await self._store.update_retrying(create)
        return JoinAnswer(
            node_id=node_id,
            cluster_id=cluster.id,
            role=role,
            certificate=certificate.decode(),
            root_ca=cluster.root_ca.certificate.decode(),
            managers=manager_addresses(self._store.view()),
            data_path_port=cluster.data_path_port,
            unlock_key=cluster.unlock_key if role is Role.MANAGER else "",
            lock_version=cluster.version,
        )

    def renew(self, view: View, node_id: str, csr: bytes) -> RenewAnswer:
        """A new certificate for a node of the cluster, with its present role. Changes nothing."""
        cluster, node = view.cluster(), view.get(Node, node_id)
        if cluster is None or node is None:
            raise Forbidden(f"node {node_id} is not part of this cluster (any more): it must join again")
        certificate = sign(cluster, csr, node_id=node_id, role=node.role, now=self._clock.now())
        return RenewAnswer(
            role=node.role,
            certificate=certificate.decode(),
            root_ca=cluster.root_ca.certificate.decode(),
            managers=manager_addresses(view),
            unlock_key=cluster.unlock_key if node.role is Role.MANAGER else "",
            lock_version=cluster.version,
        )


def manager_addresses(view: View) -> tuple[ManagerAddress, ...]:
    """The managers that are in Raft, with their addresses on the cluster port."""
    return tuple(
        ManagerAddress(node_id=node.id, address=node.manager_status.address)
        for node in view.all(Node)
        if node.manager_status is not None and node.role is Role.MANAGER
    )


def node_tls(cluster: Cluster) -> NodeTLSInfo:
    """What the Engine API tells of a node's certificate."""
    subject, public_key = ca_issuer(cluster.root_ca.certificate)
    return NodeTLSInfo(
        trust_root=cluster.root_ca.certificate.decode(),
        issuer_subject=subject,
        issuer_public_key=public_key,
    )
