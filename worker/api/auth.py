"""`/auth`: check credentials with a registry, for `docker login`. They are kept by the client, not here."""

import base64

import msgspec
from aiohttp import web

from cluster.errors import InvalidArgument
from worker.api.http import add_route, answer, body
from worker.engine import Engine
from worker.images.auth import RegistryAuth


class Login(msgspec.Struct, frozen=True):
    """The Engine API's AuthConfig."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
    serveraddress: str = ""


def routes(app: web.Application, engine: Engine) -> None:
    """Add the handler."""

    async def login(request: web.Request) -> web.Response:
        given = await body(request, Login)
        auth = RegistryAuth.decode(base64.urlsafe_b64encode(msgspec.json.encode(given)).decode())
        if auth is None:
            raise InvalidArgument("no credentials given: username and password are needed")
        await engine.images.login(given.serveraddress, auth)
        return answer({"Status": "Login Succeeded", "IdentityToken": ""})

    add_route(app, "POST", "/auth", login)
