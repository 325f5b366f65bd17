"""The option that asks for encryption."""

import pytest

from cluster.encryption import check_encryption
from cluster.errors import InvalidArgument


@pytest.mark.parametrize(
    "key",
    ["encripted", "encrypt", "encryption", "Encrypted", "encrpyted", "encypted", "--encrypted", "enctypted"],
)
def test_encryption_misspelt_is_refused(key: str) -> None:
    """An option that nobody knows means nothing, and this network would be plain."""
    with pytest.raises(InvalidArgument, match=f"unknown option {key}: .* write --opt encrypted"):
        check_encryption({key: ""}, None)


def test_other_options_that_nobody_knows_are_left_alone() -> None:
    """As with dockerd."""
    others = ("com.docker.network.driver.mtu", "com.example.encrypted", "secure", "entry", "encrypted")
    check_encryption(dict.fromkeys(others, ""), None)
