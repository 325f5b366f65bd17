"""The routes of a real node: shoald's, and those of its manager."""

import inspect
import re
from typing import Any, cast

from aiohttp import web

from manager.api.app import engine_app
from manager.guard import Bounds, Guard
from shoal.daemon.config import DaemonConfig
from shoal.daemon.daemon import Daemon
from shoal.daemon.proxy import ManagerProxy

_VERSION = "/v{"


class _Anything:
    """Stands for parts of a node that are only held while routes are added, never asked."""

    def __getattr__(self, name: str) -> "_Anything":
        return self

    def __call__(self, *_: object, **__: object) -> "_Anything":
        return self


def manager_app() -> web.Application:
    """A manager's application."""
    return engine_app(cast(Any, _Anything()))


def node_app() -> web.Application:
    """shoald's application."""
    daemon = Daemon(DaemonConfig(data_root="/nowhere", exec_root="/nowhere"))
    parameters = inspect.signature(daemon._app).parameters
    real = {"guard": Guard(Bounds()), "proxy": ManagerProxy()}
    given = {name: real.get(name, _Anything()) for name in parameters}
    return daemon._app(**cast(Any, given))


def routes_of(app: web.Application) -> set[str]:
    """`METHOD /path` for each route without a version in its path; parameters have no names: `{}`."""
    found = set()
    for route in app.router.routes():
        path = route.resource.canonical if route.resource else ""
        if not path.startswith((_VERSION, "/internal/")):
            found.add(f"{route.method} {plain(path)}")
    return found


def plain(path: str) -> str:
    """A path with its parameters unnamed: `/nodes/{}/update`."""
    return re.sub(r"\{[^}]*\}", "{}", path)
