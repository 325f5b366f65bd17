"""A node's side of joining a cluster and of renewing its certificate, over the managers' port 2377.

The joiner knows nothing but a token. It takes the root CA from whoever answers, checks it against the digest
in the token, and only then, over a connection that this CA vouches for, shows the token's secret.
"""

import asyncio
import logging
import socket
import ssl
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import aiohttp
import msgspec
from msgspec.structs import replace

from cluster.codec import UNREADABLE
from cluster.errors import ShoalError, Unauthorized, Unavailable
from cluster.identity import (
    Identity,
    JoinToken,
    check_identity,
    check_root_ca,
    create_csr,
    parse_join_token,
    prove,
)
from cluster.joining import JoinAnswer, JoinRequest, RenewAnswer, RenewRequest, RootCertificate
from cluster.seams import Clock
from cluster.states import Availability, Role
from manager.rpc.tls import load_chain

log = logging.getLogger("shoal.daemon.join")

DEFAULT_PORT = 2377
MANAGER_NAME = Role.MANAGER.organizational_unit
"""The DNS name in every manager's certificate."""
COME_BACK = "`docker swarm join` with a token, on this node, gives it another one"
_MAX_ROOT_CA = 1 << 20
TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
_A = TypeVar("_A")


class JoinFailed(ShoalError):
    """A manager answered and refused; the status is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Joined(NamedTuple):
    """The node's new identity, what the manager said besides, and this node's own address towards it."""

    identity: Identity
    answer: JoinAnswer
    address: str


async def join(
    remote_addresses: Sequence[str],
    token: str,
    *,
    clock: Clock,
    address: str = "",
    data_path_address: str = "",
    availability: Availability = Availability.ACTIVE,
    former: Identity | None = None,
) -> Joined:
    """Become a node of the cluster that the token is of, by one of these managers ("host[:port]").

    `address` is the IP at which other nodes reach this one; empty: the one that the manager is reached from.
    `former`: what this node held until it expired, to come back as the node that it was.

    Raises InvalidArgument (no token), Unauthorized (wrong token or foreign CA), JoinFailed, Unavailable (no
    manager answered; the message has the reason of each).
    """
    parsed = parse_join_token(token)
    request = JoinRequest(
        token=token.strip(),
        csr="",
        address=address,
        data_path_address=data_path_address,
        availability=availability,
    )
    reasons = []
    for remote in remote_addresses:
        try:
            return await _join_by(_with_port(remote), parsed, request, clock, former)
        except Unavailable as error:
            log.warning("can't join by this manager", extra={"manager": remote, "reason": str(error)})
            reasons.append(f"{remote}: {error}")
    raise Unavailable(
        "no manager could be reached to join the cluster: " + "; ".join(reasons or ["none given"])
    )


async def _join_by(
    manager: str,
    parsed: JoinToken,
    request: JoinRequest,
    clock: Clock,
    former: Identity | None,
) -> Joined:
    own_address = request.address or await _own_address(manager)
    root_ca = check_root_ca(parsed, await _fetch_root_ca(manager))
    key, csr = create_csr()
    request = replace(request, csr=csr.decode(), address=own_address)
    if former is not None:
        proof = b64encode(prove(former.key, csr)).decode()
        request = replace(request, previous=former.certificate.decode(), proof=proof)
    context = ssl.create_default_context(cadata=root_ca.decode())
    answer = await _post(f"https://{manager}/join", request, JoinAnswer, context)
    # Now that the token's root has vouched for who speaks, a successor that it names is trusted, too.
    check_root_ca(parsed, answer.root_ca.encode())
    identity = Identity(certificate=answer.certificate.encode(), key=key, root_ca=answer.root_ca.encode())
    check_identity(identity, clock.now())
    return Joined(identity, answer, own_address)


async def renew(identity: Identity, managers: Sequence[str], *, clock: Clock) -> tuple[Identity, RenewAnswer]:
    """A new key and certificate with the node's present role, from one of these managers ("ip:port").

    Raises Unauthorized (the present certificate is expired or not this cluster's), JoinFailed (refused: the
    node was removed), Unavailable (no manager answered).
    """
    check_identity(identity, clock.now())
    key, csr = create_csr()
    context = _client_context(identity)
    reasons = []
    for manager in managers:
        try:
            answer = await _post(
                f"https://{manager}/renew", RenewRequest(csr=csr.decode()), RenewAnswer, context
            )
        except Unavailable as error:
            reasons.append(f"{manager}: {error}")
            continue
        renewed = Identity(certificate=answer.certificate.encode(), key=key, root_ca=answer.root_ca.encode())
        check_identity(renewed, clock.now())
        return renewed, answer
    raise Unavailable("no manager renewed the certificate: " + "; ".join(reasons or ["none is known"]))


def _with_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    return address if host and port.isdigit() and not host.endswith(":") else f"{address}:{DEFAULT_PORT}"


async def _own_address(manager: str) -> str:
    """This node's IP on the way to the manager: what the kernel would send from."""
    host, _, port = manager.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_DGRAM
        )
        family, kind, _, _, target = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # sends nothing: UDP
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Unavailable(_reason(error)) from error


async def _fetch_root_ca(manager: str) -> bytes:
    """The root CA that this address claims, not trusted yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the token's digest is what is checked, by the caller
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=TIMEOUT) as http,
            http.get(f"https://{manager}/ca") as answer,
        ):
            content = await _a_little(answer)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(_reason(error)) from error
    if answer.status != 200:
        raise Unavailable(_message(content))
    try:
        return msgspec.json.decode(content, type=RootCertificate).certificate.encode()
    except UNREADABLE as error:
        raise Unavailable(f"what answers there is no manager: {error}") from error


async def _a_little(answer: aiohttp.ClientResponse) -> bytes:
    """The content, from someone who is not known yet. Raises Unavailable when there is no end of it."""
    content = bytearray()
    async for piece in answer.content.iter_any():
        content += piece
        if len(content) > _MAX_ROOT_CA:
            raise Unavailable("what answers there is no manager: it says too much")
    return bytes(content)


async def _post(url: str, content: msgspec.Struct, answer_type: type[_A], context: ssl.SSLContext) -> _A:
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=TIMEOUT) as http,
            http.post(url, data=msgspec.json.encode(content), server_hostname=MANAGER_NAME) as answer,
        ):
            received = await answer.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(_reason(error)) from error
    if answer.status == 401:
        raise Unauthorized(_message(received))
    if answer.status == 503:
        raise Unavailable(_message(received))
    if answer.status >= 400:
        raise JoinFailed(answer.status, _message(received))
    try:
        return msgspec.json.decode(received, type=answer_type)
    except UNREADABLE as error:
        raise Unavailable(f"the manager's answer can't be read: {error}") from error


def _client_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=identity.root_ca.decode())
    load_chain(context, identity)
    return context


def _message(content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=dict[str, str])["message"]
    except (*UNREADABLE, KeyError):
        return content.decode(errors="replace")[:500]


def _reason(error: Exception) -> str:
    """The error in words that say what to do about certificates."""
    text = str(error) or type(error).__name__
    lowered = text.lower().replace("_", " ")
    if "alert certificate expired" in lowered:
        return "the manager refused this node's certificate: it has expired. " + COME_BACK
    if "alert unknown ca" in lowered or "alert bad certificate" in lowered:
        return "the manager refused this node's certificate: it is of another cluster"
    if isinstance(error, ConnectionResetError | aiohttp.ServerDisconnectedError):
        # The alert that says why is often lost with the request that was already under way (TLS 1.3).
        return f"the manager broke the connection ({text}): if it refuses this node, its log says why"
    if isinstance(error, TimeoutError):
        return "no answer in time: is the port open, and is it a manager?"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"what answers there is no manager of this cluster: {error.certificate_error}"
    return text
