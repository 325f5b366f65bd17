"""Credentials as `docker login` leaves them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import InvalidArgument
from shoal.cli.credentials import DOCKER_HUB, Credentials


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _header(folder: Path, config: Any, image: str, helper: Any = None) -> dict[str, str]:
    (folder / "config.json").write_text(json.dumps(config))
    header = Credentials(folder, helper or (lambda name, server: "")).header(image)
    found: dict[str, str] = json.loads(base64.urlsafe_b64decode(header)) if header else {}
    return found


@pytest.mark.parametrize(
    ("key", "image", "server"),
    [
        ("r:5000", "r:5000/a/b:1", "r:5000"),
        ("https://r:5000/v1/", "r:5000/a/b@sha256:" + "a" * 64, "r:5000"),
        (DOCKER_HUB, "nginx", DOCKER_HUB),
        ("docker.io", "me/tool:1", DOCKER_HUB),
    ],
)
def test_names_and_passwords(tmp_path: Path, key: str, image: str, server: str) -> None:
    config = {"auths": {"other": {"auth": _b64("x:y")}, key: {"auth": _b64("me:p:w")}}}
    assert _header(tmp_path, config, image) == {"username": "me", "password": "p:w", "serveraddress": server}


def test_tokens(tmp_path: Path) -> None:
    config = {
        "auths": {"r": {"auth": _b64("<token>:"), "identitytoken": "t"}, "r.io": {"identitytoken": "t"}}
    }
    assert _header(tmp_path, config, "r.io/x") == {"identitytoken": "t", "serveraddress": "r.io"}


def test_helpers(tmp_path: Path) -> None:
    asked = []

    def helper(name: str, server: str) -> str:
        asked.append((name, server))
        user = "<token>" if name == "cloud" else "me"
        return json.dumps({"ServerURL": server, "Username": user, "Secret": "s"})

    config = {"credsStore": "keys", "credHelpers": {"c.io": "cloud"}}
    assert _header(tmp_path, config, "r.io/x", helper) == {
        "username": "me", "password": "s", "serveraddress": "r.io",
    }  # fmt: skip
    assert _header(tmp_path, config, "c.io/x", helper) == {"identitytoken": "s", "serveraddress": "c.io"}
    assert asked == [("keys", "r.io"), ("cloud", "c.io")]


def test_nothing_is_known(tmp_path: Path) -> None:
    assert Credentials(tmp_path).header("r.io/x") == ""
    assert _header(tmp_path, {"auths": {"other.io": {"auth": _b64("a:b")}}}, "r.io/x") == {}
    assert _header(tmp_path, {"auths": {"r.io": {}}, "credsStore": "keys"}, "r.io/x") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "can't be read"), (json.dumps({"auths": {"r.io": {"auth": "%%"}}}), "can't be decoded")],
)
def test_a_broken_file_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidArgument, match=words):
        Credentials(tmp_path).header("r.io/x")


def test_a_helper_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "no-such-helper"}))
    with pytest.raises(InvalidArgument, match="docker-credential-no-such-helper can't be asked"):
        Credentials(tmp_path).header("r.io/x")
