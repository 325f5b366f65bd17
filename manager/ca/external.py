"""CAs outside the cluster, which sign for it over HTTPS as CFSSL's /api/v1/cfssl/sign does."""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import msgspec

from cluster.codec import UNREADABLE
from cluster.errors import InvalidArgument, ShoalError, Unavailable
from cluster.identity import Identity, check_issued, node_names
from cluster.root_ca import authority_request, check_cross_signed
from cluster.spec import ExternalCA
from cluster.states import Role
from manager.rpc.tls import load_chain

TIMEOUT = aiohttp.ClientTimeout(total=8, sock_connect=4)
MAX_ANSWER = 1 << 20
AUTHORITY_PROFILE = "CA"
"""The CFSSL profile that is asked to vouch for a new root, as SwarmKit asks."""

Post = Callable[[str, bytes, bytes], Awaitable[bytes]]
"""POST JSON to a URL whose server one of these roots (PEM), or one that the system trusts, vouches for.
Returns the answer; raises ShoalError."""


class _Result(msgspec.Struct):
    certificate: str = ""


class _Problem(msgspec.Struct):
    message: str = ""


class _Answer(msgspec.Struct):
    success: bool = False
    result: _Result | None = None
    errors: list[_Problem] | None = None


class ExternalCAs:
    """Asks one after the other until one has signed."""

    def __init__(self, post: Post) -> None:
        self._post = post

    async def sign(
        self,
        cas: Sequence[ExternalCA],
        root: bytes,
        csr: bytes,
        *,
        node_id: str,
        role: Role,
        cluster_id: str,
        now: int,
    ) -> bytes:
        """A node's certificate. Raises Unavailable, with each CA's reason."""
        wanted = {
            "certificate_request": csr.decode(),
            "hosts": node_names(node_id, role),
            "subject": {"CN": node_id, "names": [{"OU": role.organizational_unit, "O": cluster_id}]},
        }
        return await self._ask(
            cas,
            root,
            wanted,
            lambda made: check_issued(
                made, root, csr, node_id=node_id, role=role, cluster_id=cluster_id, now=now
            ),
        )

    async def vouch(self, cas: Sequence[ExternalCA], old: bytes, new: tuple[bytes, bytes]) -> bytes:
        """The new root (certificate, key), cross-signed by the old one. Raises Unavailable."""
        wanted = {"certificate_request": authority_request(*new).decode(), "profile": AUTHORITY_PROFILE}
        return await self._ask(cas, old, wanted, lambda made: check_cross_signed(made, new[0], old))

    async def _ask(
        self,
        cas: Sequence[ExternalCA],
        root: bytes,
        wanted: dict[str, Any],
        check: Callable[[bytes], bytes],
    ) -> bytes:
        reasons = []
        for ca in cas:
            try:
                content = await self._post(ca.url, msgspec.json.encode(wanted), root)
                return check(_certificate(content))
            except InvalidArgument as error:
                reasons.append(f"{ca.url} made a certificate that can't be used: {error}")
            except ShoalError as error:
                reasons.append(f"{ca.url}: {error}")
        none = "none is configured for the cluster's present root (docker swarm update --external-ca)"
        raise Unavailable("no external CA signed: " + ("; ".join(reasons) or none))


def _certificate(content: bytes) -> bytes:
    try:
        answer = msgspec.json.decode(content, type=_Answer)
    except UNREADABLE as error:
        raise Unavailable(f"what answers there is no CFSSL signer: {error}") from error
    if not answer.success or answer.result is None or not answer.result.certificate:
        said = "; ".join(problem.message for problem in answer.errors or ()) or "it does not say why"
        raise Unavailable(f"it refuses to sign: {said}")
    return answer.result.certificate.encode()


def https(identity: Callable[[], Identity | None]) -> Post:
    """Over HTTPS, with this manager's certificate, if it has one, for CAs that ask for it."""

    async def post(url: str, content: bytes, roots: bytes) -> bytes:
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=roots.decode())
        if (own := identity()) is not None:
            load_chain(context, own)
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=context), timeout=TIMEOUT, headers=headers
                ) as http,
                http.post(url, data=content, allow_redirects=False) as answer,
            ):
                received = await answer.content.read(MAX_ANSWER)
                while not answer.content.at_eof() and len(received) < MAX_ANSWER:
                    received += await answer.content.read(MAX_ANSWER)
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unavailable(
                f"its TLS certificate is not to be trusted ({error.certificate_error}): it must be for the "
                "URL's host, and from the CA itself or from one that the managers' systems trust"
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable(str(error) or "no answer in time") from error
        if len(received) >= MAX_ANSWER:
            raise Unavailable("what answers there is no CFSSL signer: it says too much")
        if answer.status >= 500 or answer.status in (401, 403, 404):
            text = received.decode(errors="replace")[:200]
            raise Unavailable(f"it answers with status {answer.status}: {text}")
        return received

    return post


async def nowhere(url: str, content: bytes, roots: bytes) -> bytes:
    """For managers without connections of their own."""
    raise Unavailable("this manager reaches no CA outside the cluster")
