"""What a task says when its image can't be pulled."""

import pytest

from worker.agent.pull_errors import told
from worker.images.auth import RegistryAuth
from worker.images.errors import AccessDenied, RegistryError, RegistryUnauthorized

_AUTH = RegistryAuth(username="u", password="p")


@pytest.mark.parametrize(
    ("error", "auth", "words"),
    [
        (RegistryUnauthorized("r: unauthorized"), _AUTH, "credential was refused, it may have expired"),
        (AccessDenied("denied"), _AUTH, "credential was refused, it may have expired"),
        (RegistryUnauthorized("r: no basic auth credentials"), None, "was given no credential"),
    ],
)
def test_a_refused_credential_is_told_with_the_way_out(
    error: Exception, auth: RegistryAuth | None, words: str
) -> None:
    message = told(error, "r/tool:1", auth, "web")
    assert message.startswith(f"No such image: r/tool:1: {error}; ")
    assert words in message
    assert "docker service update --with-registry-auth web" in message
    assert "shoal service refresh-auth web" in message


def test_other_reasons_are_told_as_they_are() -> None:
    assert told(RegistryError("r: status 500"), "i", _AUTH, "web") == "No such image: i: r: status 500"
