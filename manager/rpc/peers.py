"""Who is at the other end of a connection to the cluster port, and whether it may do what it asks."""

import ssl

from aiohttp import web

from cluster.errors import Forbidden, Unauthorized
from cluster.identity import Peer, peer_of_der
from cluster.objects import Cluster, Node
from cluster.seams import SECOND
from cluster.states import Role
from manager.store import View


def certificate_of(request: web.Request) -> bytes | None:
    """The client's certificate in DER, verified by TLS against the root CA; None when it gave none."""
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if not isinstance(tls, ssl.SSLObject):
        return None
    return tls.getpeercert(binary_form=True)


def require_node(request: web.Request, cluster_id: str, cluster: Cluster | None, now: int) -> Peer:
    """The node that asks: any node of this cluster. Raises Unauthorized or Forbidden, and says why."""
    certificate = certificate_of(request)
    if certificate is None:
        raise Unauthorized("a node certificate of this cluster is required")
    return check_peer(peer_of_der(certificate), cluster_id, cluster, now)


def check_peer(peer: Peer, cluster_id: str, cluster: Cluster | None, now: int) -> Peer:
    """Refuse certificates of another cluster, of nodes removed from `cluster` (None: don't look), and those
    expired since the handshake."""
    if peer.cluster_id != cluster_id:
        raise Forbidden(f"the certificate is of cluster {peer.cluster_id}, this is cluster {cluster_id}")
    if cluster is not None and peer.node_id in cluster.removed_nodes:
        raise Forbidden(
            f"node {peer.node_id} was removed from the cluster: leave the swarm on it, then join again"
        )
    if now >= peer.not_after + SECOND:
        raise Forbidden(
            f"the certificate of node {peer.node_id} has expired: `docker swarm join` there gives another one"
        )
    return peer


def require_manager(request: web.Request, cluster_id: str, view: View, now: int) -> Peer:
    """The manager that asks: by its certificate, and still one by the cluster's state."""
    peer = require_node(request, cluster_id, view.cluster(), now)
    if peer.role is not Role.MANAGER:
        raise Forbidden(f"node {peer.node_id} is a worker: only managers may ask this")
    node = view.get(Node, peer.node_id)
    # A manager that has just joined may be ahead of what is applied here: then its certificate decides.
    if node is not None and node.role is not Role.MANAGER:
        raise Forbidden(f"node {peer.node_id} was demoted: it is no manager any more")
    return peer
