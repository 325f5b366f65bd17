"""Registry credentials as `docker login` keeps them: in `config.json`, or with a credential helper."""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.errors import InvalidArgument
from worker.images.reference import DEFAULT_DOMAIN, Reference

DOCKER_HUB = "https://index.docker.io/v1/"
_HELPER_SECONDS = 30
_NOT_FOUND = "credentials not found"


def run_helper(helper: str, server: str) -> str:
    """What `docker-credential-HELPER get` prints for a server; empty when it knows none.

    Raises InvalidArgument.
    """
    command = [f"docker-credential-{helper}", "get"]
    try:
        done = subprocess.run(
            command, input=server, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidArgument(f"credential helper {command[0]} can't be asked: {error}") from error
    if done.returncode and _NOT_FOUND in done.stdout + done.stderr:
        return ""
    if done.returncode:
        raise InvalidArgument(f"credential helper {command[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Credentials:
    """What the user is known by at registries.

    `folder` holds `config.json`; `helper` asks a credential helper (tests give their own).
    """

    def __init__(self, folder: Path, helper: Callable[[str, str], str] = run_helper) -> None:
        self._file = folder / "config.json"
        self._helper = helper

    @classmethod
    def usual(cls, environ: Mapping[str, str] = os.environ) -> "Credentials":
        """Those of DOCKER_CONFIG, or of the home directory."""
        folder = environ.get("DOCKER_CONFIG")
        return cls(Path(folder) if folder else Path.home() / ".docker")

    def header(self, image: str) -> str:
        """X-Registry-Auth for the image's registry; empty when nothing is known for it.

        Raises InvalidArgument: the image has no name, or the file or a helper can't be read.
        """
        domain = Reference.parse_name(image).domain
        server = DOCKER_HUB if domain == DEFAULT_DOMAIN else domain
        config = self._read()
        helper = _mapping(config, "credHelpers").get(server) or config.get("credsStore")
        found = self._asked(str(helper), server) if helper else {}
        found = found or self._written(config, server)
        if not found:
            return ""
        return base64.urlsafe_b64encode(json.dumps(found | {"serveraddress": server}).encode()).decode()

    def _read(self) -> dict[str, Any]:
        try:
            config = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{self._file} can't be read: {error}") from error
        return config if isinstance(config, dict) else {}

    def _asked(self, helper: str, server: str) -> dict[str, str]:
        text = self._helper(helper, server)
        if not text.strip():
            return {}
        try:
            told = json.loads(text)
            name, secret = str(told["Username"]), str(told["Secret"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgument(f"credential helper {helper} gave no credentials in JSON") from error
        return {"identitytoken": secret} if name == "<token>" else {"username": name, "password": secret}

    def _written(self, config: dict[str, Any], server: str) -> dict[str, str]:
        for key, entry in _mapping(config, "auths").items():
            if _server(key) != _server(server) or not isinstance(entry, dict):
                continue
            known = {name: str(entry[name]) for name in ("identitytoken", "registrytoken") if entry.get(name)}
            name, password = str(entry.get("username") or ""), str(entry.get("password") or "")
            if entry.get("auth"):
                try:
                    decoded = base64.b64decode(str(entry["auth"]), validate=True).decode()
                except (binascii.Error, ValueError) as error:
                    raise InvalidArgument(f"{self._file}: the entry of {key} can't be decoded") from error
                name, _, password = decoded.partition(":")
            if name and not known:
                known = {"username": name, "password": password.rstrip("\0")}
            return known
        return {}


def _mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _server(key: str) -> str:
    """A registry's host, however the entry writes it: `https://host/v1/` or `host`."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "index.docker.io" if host == DEFAULT_DOMAIN else host
