import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from worker.images.auth import Challenge, RegistryAuth, parse_challenges


def header(**fields: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


@given(st.text(), st.text())
def test_name_and_password_round_trip(username: str, password: str) -> None:
    if "\ud800" <= max(username + password, default="") <= "\udfff":
        return
    auth = RegistryAuth.decode(header(username=username, password=password))
    assert auth == (RegistryAuth(username, password) if username or password else None)


def test_other_forms() -> None:
    both = base64.b64encode(b"alice:s:ecret").decode()
    assert RegistryAuth.decode(header(auth=both)) == RegistryAuth("alice", "s:ecret")
    assert RegistryAuth.decode(header(identitytoken="t")) == RegistryAuth(identity_token="t")
    assert RegistryAuth.decode(header(username="a", password="b").rstrip("=")) == RegistryAuth("a", "b")
    for empty in ("", "e30=", header(serveraddress="x"), base64.b64encode(b"null").decode()):
        assert RegistryAuth.decode(empty) is None


@pytest.mark.parametrize("bad", ["!", "bm90IGpzb24=", "W10=", "eyJ1c2VybmFtZSI6MX0="])
def test_bad_header_is_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument, match="X-Registry-Auth"):
        RegistryAuth.decode(bad)


@given(st.text(max_size=200))
def test_any_header_is_parsed_or_refused(text: str) -> None:
    try:
        RegistryAuth.decode(text)
    except InvalidArgument:
        return


def test_secrets_are_not_shown() -> None:
    shown = repr(RegistryAuth("alice", "pass", "identity", "registry"))
    assert "alice" in shown
    assert not {"pass", "identity", "registry"} & set(shown.replace("'", " ").replace("=", " ").split())


def test_challenges() -> None:
    text = 'Bearer realm="https://a/t?x=1,2",service="s \\"q\\"",scope="r:x:pull,push", Basic realm="b"'
    assert parse_challenges(text) == [
        Challenge("bearer", {"realm": "https://a/t?x=1,2", "service": 's "q"', "scope": "r:x:pull,push"}),
        Challenge("basic", {"realm": "b"}),
    ]
    assert parse_challenges("Basic realm=plain") == [Challenge("basic", {"realm": "plain"})]


@given(st.text(max_size=300))
def test_any_challenge_is_parsed(text: str) -> None:
    for challenge in parse_challenges(text):
        assert challenge.scheme == challenge.scheme.lower()


def test_long_hostile_challenge_is_parsed_soon() -> None:
    assert parse_challenges("Bearer " + "a=b " * 5000 + '"')[0].scheme == "bearer"
