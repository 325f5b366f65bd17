"""What a session's beginning changes of its node, and what a node should be told of managers and roles."""

from msgspec.structs import replace

from cluster.joining import is_ip
from cluster.messages import Hello, ManagerAddress
from cluster.objects import Cluster, Node, NodeDescription, NodeTLSInfo
from cluster.root_ca import issuer_among
from cluster.states import NodeState
from manager.ca.root import signing_roots
from manager.dispatcher.channel import PeerIdentity
from manager.store import Transaction, View

MAX_TRUST_ROOT = 64 << 10
"""Bytes of root certificates that a node may say it trusts: two are some 1.5 KB."""


def sound(hello: Hello) -> bool:
    """Whether the addresses that the node names are some, and it trusts no more than can be written."""
    if len(hello.trust_root) > MAX_TRUST_ROOT:
        return False
    return (not hello.address or is_ip(_host(hello.address))) and (
        not hello.data_path_address or is_ip(hello.data_path_address)
    )


def _host(address: str) -> str:
    """The address without its port."""
    if is_ip(address):
        return address
    host = address.rpartition(":")[0]
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def register(tx: Transaction, peer: PeerIdentity, hello: Hello) -> Node | None:
    """Write that the node is here: ready, as it describes itself. None when the cluster does not know it.

    Writes nothing when all that is known already, so that reconnecting costs no Raft entry.
    """
    node = tx.get(Node, peer.node_id)
    if node is None:
        return None
    address = _host(hello.address) or peer.address
    cluster = tx.cluster()
    seen = replace(
        node,
        description=hello.description,
        status=replace(node.status, state=NodeState.READY, message="", address=address),
        role=peer.role,
        data_path_address=hello.data_path_address or address,
        tls=_tls(node.tls, peer, hello, cluster) if cluster is not None else node.tls,
    )
    if seen != node:
        tx.update(seen)
    return seen


def _tls(before: NodeTLSInfo, peer: PeerIdentity, hello: Hello, cluster: Cluster) -> NodeTLSInfo:
    """Who signed the certificate that the node uses, as the connection shows; what it trusts, by its word."""
    issuer = issuer_among(peer.certificate, signing_roots(cluster.root_ca)) if peer.certificate else None
    if issuer is None:
        return before
    trusts = hello.trust_root or before.trust_root
    return replace(
        before, trust_root=trusts, issuer_subject=issuer.subject, issuer_public_key=issuer.public_key
    )


def describe(tx: Transaction, node_id: str, description: NodeDescription) -> None:
    """Write a node's new description."""
    node = tx.get(Node, node_id)
    if node is not None and node.description != description:
        tx.update(replace(node, description=description))


def mark_down(tx: Transaction, node_id: str, reason: str) -> None:
    """Write that a node is down."""
    node = tx.get(Node, node_id)
    if node is not None and node.status.state != NodeState.DOWN:
        status = replace(node.status, state=NodeState.DOWN, message=reason)
        tx.update(replace(node, status=status))


def mark_ready(tx: Transaction, node_id: str) -> None:
    """Write that a node is ready after all."""
    node = tx.get(Node, node_id)
    if node is not None and node.status.state != NodeState.READY:
        tx.update(replace(node, status=replace(node.status, state=NodeState.READY, message="")))


def manager_addresses(view: View) -> tuple[ManagerAddress, ...]:
    """The managers that agents may connect to."""
    return tuple(
        ManagerAddress(node.id, node.manager_status.address)
        for node in view.all(Node)
        if node.manager_status is not None and node.manager_status.address
    )
