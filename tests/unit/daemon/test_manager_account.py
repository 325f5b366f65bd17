"""Whom the manager runs as."""

import os
import pwd

import pytest

from cluster.errors import InvalidArgument
from shoal.daemon import config
from shoal.daemon.manager_account import FALLBACK_ID, USER, Account, manager_account

NOBODY = pwd.getpwnam("nobody")


@pytest.mark.parametrize(
    ("setting", "account"),
    [
        ("nobody", Account(NOBODY.pw_uid, NOBODY.pw_gid)),
        ("7000", Account(7000, 7000)),
        ("7000:8000", Account(7000, 8000)),
    ],
)
def test_a_user_by_name_or_number(setting: str, account: Account) -> None:
    assert manager_account(setting) == account


def test_without_a_user_of_its_own_it_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> pwd.struct_passwd:
        assert name == USER
        if there:
            return pwd.struct_passwd((USER, "x", 990, 980, "", "/nonexistent", "/usr/sbin/nologin"))
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", find)
    there = False
    assert manager_account() == Account(FALLBACK_ID, FALLBACK_ID)
    there = True
    assert manager_account() == Account(990, 980)


@pytest.mark.parametrize(
    "setting", ["root", "0", "0:0", "0:7", "7:0", "no-such-user", "7:8:9", "-7", ":", "4294967295"]
)
def test_root_and_nobody_at_all_are_refused(setting: str) -> None:
    with pytest.raises(InvalidArgument, match="--manager-user"):
        manager_account(setting)
    with pytest.raises(InvalidArgument, match="--manager-user"):
        config.load({"manager_user": setting}, None)


def test_the_fallback_is_not_ours() -> None:
    assert os.getuid() != FALLBACK_ID
