"""Whom the manager process runs as."""

import pwd
from typing import NamedTuple

from cluster.errors import InvalidArgument

USER = "shoal-manager"
FALLBACK_ID = 65521
"""User and group where there is no such user: one of those that no distribution gives away (65520-65533)."""


class Account(NamedTuple):
    """A user and group by number."""

    uid: int
    gid: int


def manager_account(setting: str = "") -> Account:
    """The account that `setting` names: a user, UID or UID:GID; by default shoal-manager, or else 65521.

    Raises:
        InvalidArgument: there is no such user, or it is root.
    """
    try:
        if not setting:
            try:
                account = _user(USER)
            except KeyError:
                account = Account(FALLBACK_ID, FALLBACK_ID)
        elif setting.replace(":", "", 1).isdigit():
            uid, _, gid = setting.partition(":")
            account = Account(int(uid), int(gid or uid))
        else:
            account = _user(setting)
    except (KeyError, ValueError):
        raise InvalidArgument(
            f"--manager-user {setting}: no such user; add it (`useradd --system {USER}`) or write UID:GID"
        ) from None
    if not 0 < account.uid < 2**32 - 1 or not 0 < account.gid < 2**32 - 1:
        raise InvalidArgument(
            f"--manager-user {setting}: the manager does not run as root; name another user"
        )
    return account


def _user(name: str) -> Account:
    entry = pwd.getpwnam(name)
    return Account(entry.pw_uid, entry.pw_gid)
