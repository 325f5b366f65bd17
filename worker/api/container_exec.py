"""`/containers/{id}/exec` and `/exec`: commands in running containers."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import InvalidArgument
from worker.api.container_attach import size
from worker.api.hijack import Done, Hijacked
from worker.api.http import add_route, answer, body, frame
from worker.api.interactive import Pair, carry, detach_keys
from worker.containers.containers import Containers
from worker.containers.execs import Exec, ExecRequest
from worker.containers.request import words
from worker.engine import Engine
from worker.runtime.session import Session


class StartRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


def routes(app: web.Application, engine: Engine, containers: Containers) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine, containers)
    for method, path, handler in (
        ("POST", "/containers/{name:.+}/exec", handlers.create),
        ("POST", "/exec/{id}/start", handlers.start),
        ("POST", "/exec/{id}/resize", handlers.resize),
        ("GET", "/exec/{id}/json", handlers.inspect),
    ):
        add_route(app, method, path, handler)


class _Handlers:
    def __init__(self, engine: Engine, containers: Containers) -> None:
        self._engine, self._containers = engine, containers
        self._execs = containers.execs

    async def create(self, request: web.Request) -> web.Response:
        config, state = self._containers.find(request.match_info["name"])
        wanted = await body(request, ExecRequest)
        detach_keys(wanted.detach_keys)
        id = self._execs.create(config, state, wanted)
        command = " ".join(words(wanted.cmd))
        self._engine.events.container(f"exec_create: {command}", config, {"execID": id})
        return answer({"Id": id}, status=201)

    async def start(self, request: web.Request) -> web.StreamResponse:
        id = request.match_info["id"]
        wanted = await body(request, StartRequest)
        found = self._execs.find(id)
        asked = found.request
        dimensions = wanted.console_size or asked.console_size or [0, 0]
        if len(dimensions) != 2:
            raise InvalidArgument("ConsoleSize is a height and a width")
        stdin = asked.attach_stdin and not wanted.detach
        session = self._execs.start(id, stdin=stdin, size=(dimensions[0], dimensions[1]))
        config, _ = self._engine.runtime.get(found.container_id)
        command = " ".join(words(asked.cmd))
        self._engine.events.container(f"exec_start: {command}", config, {"execID": id})
        if wanted.detach:
            await session.started()
            session.drain()
            if session.failure:
                raise InvalidArgument(_refusal(session))
            return web.Response(status=200)
        streams = frozenset(n for n, on in ((1, asked.attach_stdout), (2, asked.attach_stderr)) if on)
        # As in dockerd, it is the start that says how the client reads.
        kind = "raw-stream" if wanted.tty else "multiplexed-stream"
        try:
            async with Hijacked(request, {"Content-Type": f"application/vnd.docker.{kind}"}) as client:
                keys = detach_keys(asked.detach_keys)
                pair = Pair(session, raw=wanted.tty, stdin=stdin, streams=streams)
                await carry(client, pair, keys=keys if asked.tty else None)
                if session.failure:
                    said = f"{_refusal(session)}\r\n".encode()
                    await client.write(said if wanted.tty else frame(1, said))
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone
        finally:
            await session.leave()
        return Done()

    async def resize(self, request: web.Request) -> web.Response:
        self._execs.resize(request.match_info["id"], *size(request))
        return web.Response(status=200)

    async def inspect(self, request: web.Request) -> web.Response:
        return answer(exec_json(self._execs.find(request.match_info["id"])))


def _refusal(session: Session) -> str:
    """Why a command did not run, in the words that clients look for."""
    words = {127: ": executable file not found in $PATH", 126: ": permission denied"}
    why = words.get(session.exit_code.result(), "")
    return f"OCI runtime exec failed: exec failed: {session.failure}{why}: unknown"


def exec_json(found: Exec) -> dict[str, Any]:
    """GET /exec/{id}/json."""
    asked = found.request
    command = words(asked.cmd)
    process: dict[str, Any] = {
        "tty": asked.tty,
        "entrypoint": command[0],
        "arguments": command[1:],
        "privileged": asked.privileged,
    }
    if asked.user:
        process["user"] = asked.user
    return {
        "ID": found.id,
        "Running": found.running,
        "ExitCode": found.exit_code,
        "ProcessConfig": process,
        "OpenStdin": asked.attach_stdin,
        "OpenStderr": asked.attach_stderr,
        "OpenStdout": asked.attach_stdout,
        "CanRemove": found.exit_code is not None,
        "ContainerID": found.container_id,
        "DetachKeys": asked.detach_keys,
        "Pid": found.session.pid if found.session is not None else 0,
    }
