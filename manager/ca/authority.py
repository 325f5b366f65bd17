"""Certificates for nodes: founding a cluster, joining it with a token, renewing."""

from base64 import b64decode
from binascii import Error as NotBase64

from msgspec.structs import replace

from cluster.defaults import node_cert_expiry, stored_cluster
from cluster.errors import Forbidden, InvalidArgument, Unauthorized, Unavailable
from cluster.identity import (
    Identity,
    JoinToken,
    ca_digest,
    check_proof,
    check_root_ca,
    checked_request,
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
    RootCA,
)
from cluster.seams import Clock, Random
from cluster.spec import CAConfig, ClusterSpec, NodeSpec
from cluster.states import Availability, NodeState, Role
from manager.ca.external import ExternalCAs, nowhere
from manager.ca.root import externals, signing, trusted, wanted_tls
from manager.ca.rotation import changed_root
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
    if spec.ca_config is not None:  # what it asks for besides is done by Authority.at_founding
        asked = spec.ca_config
        plain = CAConfig(node_cert_expiry=asked.node_cert_expiry, force_rotate=asked.force_rotate)
        spec = replace(spec, ca_config=plain)
    tokens = JoinTokens(worker=new_join_token(certificate, rng), manager=new_join_token(certificate, rng))
    cluster = Cluster(
        id=new_id(rng),
        spec=stored_cluster(spec),
        root_ca=RootCA(
            certificate=certificate,
            key=key,
            digest=ca_digest(certificate),
            join_tokens=tokens,
            forced=spec.ca_config.force_rotate if spec.ca_config else 0,
        ),
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
            tls=wanted_tls(replace(cluster, root_ca=replace(cluster.root_ca, rotation=None))),
        )
    )


def sign(cluster: Cluster, csr: bytes, *, node_id: str, role: Role, now: int) -> bytes:
    """A node certificate of this cluster, and what vouches for it, by the key that the managers have.

    Raises InvalidArgument when the request is unsound.
    """
    root = signing(cluster.root_ca)
    certificate = issue_certificate(
        (root.certificate, root.key),
        csr,
        node_id=node_id,
        role=role,
        cluster_id=cluster.id,
        now=now,
        lifetime=node_cert_expiry(cluster.spec),
    )
    return certificate + root.intermediate


async def issue(
    cluster: Cluster, csr: bytes, external: ExternalCAs, *, node_id: str, role: Role, now: int
) -> bytes:
    """A node's certificate, and what vouches for it: by an external CA if there is one for the root.

    Raises InvalidArgument, Unavailable.
    """
    root = signing(cluster.root_ca)
    cas = externals(cluster, root.certificate)
    if not cas and root.key:
        return sign(cluster, csr, node_id=node_id, role=role, now=now)
    checked_request(csr)
    certificate = await external.sign(
        cas, root.certificate, csr, node_id=node_id, role=role, cluster_id=cluster.id, now=now
    )
    return certificate + root.intermediate


class Authority:
    """Admits nodes and renews their certificates, on the store."""

    def __init__(self, store: Store, clock: Clock, rng: Random) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self.external = ExternalCAs(nowhere)
        """How CAs outside the cluster are asked."""

    async def admit(self, request: JoinRequest) -> JoinAnswer:
        """A new node, with the role that its token gives. Under a new id each time: a node that was wiped
        and joins again is another one, unless it proves to hold its former certificate's key.

        Raises Unauthorized (token), InvalidArgument (request), Forbidden (a node that is none any more), or
        Unavailable (nobody signs).
        """
        token = parse_join_token(request.token)
        if not request.address:
            raise InvalidArgument("the join request must say at which address the node is reached")
        for address in (request.address, request.data_path_address):
            if address and not is_ip(address):
                raise InvalidArgument(f"the join request names {address[:80]!r}, which is not an IP address")
        view = self._store.view()
        cluster, role = self._by_token(view, token, request)
        if request.previous:
            node = self._former(view, cluster, role, request)
            node_id, role = node.id, node.role
        else:
            node_id = new_id(self._rng)
        certificate = await self.issue(cluster, request.csr.encode(), node_id=node_id, role=role)

        def create(tx: Transaction) -> Cluster:
            now, _ = self._by_token(tx, token, request)
            if signing(now.root_ca) != signing(cluster.root_ca):
                raise Unavailable("the cluster's root CA has just been changed: try again")
            if request.previous:
                self._former(tx, now, role, request)
                return now
            tx.create(
                Node(
                    id=node_id,
                    spec=NodeSpec(labels={}, role=role, availability=request.availability),
                    role=role,
                    status=NodeStatus(state=NodeState.UNKNOWN, address=request.address),
                    data_path_address=request.data_path_address or request.address,
                    tls=wanted_tls(now),
                )
            )
            return now

        cluster = await self._store.update_retrying(create)
        return JoinAnswer(
            node_id=node_id,
            cluster_id=cluster.id,
            role=role,
            certificate=certificate.decode(),
            root_ca=trusted(cluster.root_ca).decode(),
            managers=manager_addresses(self._store.view()),
            data_path_port=cluster.data_path_port,
            unlock_key=cluster.unlock_key if role is Role.MANAGER else "",
            lock_version=cluster.version,
        )

    def _by_token(self, view: View, token: JoinToken, request: JoinRequest) -> tuple[Cluster, Role]:
        """The cluster, and the role that the token gives in it. Raises Unauthorized."""
        cluster = view.cluster()
        assert cluster is not None, "a leader has founded or joined a cluster"
        check_root_ca(token, cluster.root_ca.certificate)
        tokens = cluster.root_ca.join_tokens
        return cluster, token_role(request.token, tokens.worker, tokens.manager)

    def _former(self, view: View, cluster: Cluster, role: Role, request: JoinRequest) -> Node:
        """The node that the request's sender was, and still is. Raises Unauthorized, Forbidden."""
        try:
            proof = b64decode(request.proof, validate=True)
        except NotBase64 as error:
            raise Unauthorized("the proof that the node holds its former key can't be read") from error
        certificate = request.previous.encode()
        peer = check_proof(certificate, trusted(cluster.root_ca), request.csr.encode(), proof)
        node = view.get(Node, peer.node_id)
        if peer.cluster_id != cluster.id or node is None or node.id in cluster.removed_nodes:
            raise Forbidden(
                f"node {peer.node_id} is not part of this cluster any more: run `docker swarm leave --force` "
                "on it and join again, as a new node"
            )
        if Role.MANAGER in (node.role, node.spec.role) and role is not Role.MANAGER:
            raise Forbidden(
                f"node {node.id} is a manager: it comes back with the manager's token "
                "(docker swarm join-token manager)"
            )
        return node

    async def renew(self, view: View, node_id: str, csr: bytes) -> RenewAnswer:
        """A new certificate for a node of the cluster, with its present role. Changes nothing.

        Raises Forbidden, InvalidArgument, or Unavailable (nobody signs).
        """
        cluster, node = view.cluster(), view.get(Node, node_id)
        if cluster is None or node is None:
            raise Forbidden(f"node {node_id} is not part of this cluster (any more): it must join again")
        certificate = await self.issue(cluster, csr, node_id=node_id, role=node.role)
        return RenewAnswer(
            role=node.role,
            certificate=certificate.decode(),
            root_ca=trusted(cluster.root_ca).decode(),
            managers=manager_addresses(view),
            unlock_key=cluster.unlock_key if node.role is Role.MANAGER else "",
            lock_version=cluster.version,
        )

    async def issue(self, cluster: Cluster, csr: bytes, *, node_id: str, role: Role) -> bytes:
        """As the function of that name, now."""
        now = self._clock.now()
        return await issue(cluster, csr, self.external, node_id=node_id, role=role, now=now)

    async def at_founding(self, cluster: Cluster, spec: ClusterSpec) -> Cluster:
        """A new cluster with the root CA that it is to have: the external CA's, if there is one.

        Its first node has a certificate of the first root, and renews at once. Raises as `changed`.
        """
        given = spec.ca_config
        if given is None or not (given.external_cas or given.signing_ca_cert or given.signing_ca_key):
            return cluster
        if not given.signing_ca_cert:
            certificate = next((ca.ca_cert for ca in given.external_cas or () if ca.ca_cert), "")
            if not certificate:
                raise InvalidArgument(
                    "an external CA for a new cluster must come with its root certificate: "
                    "--external-ca protocol=cfssl,url=https://...,cacert=FILE"
                )
            given = replace(given, signing_ca_cert=certificate)
        return await self.changed(cluster, cluster.spec, given)

    async def changed(self, cluster: Cluster, spec: ClusterSpec, given: CAConfig) -> Cluster:
        """The cluster with the root CA that these settings ask for: `rotation.changed_root`."""
        return await changed_root(cluster, spec, given, self.external, self._clock)


def manager_addresses(view: View) -> tuple[ManagerAddress, ...]:
    """The managers that are in Raft, with their addresses on the cluster port."""
    return tuple(
        ManagerAddress(node_id=node.id, address=node.manager_status.address)
        for node in view.all(Node)
        if node.manager_status is not None and node.role is Role.MANAGER
    )
