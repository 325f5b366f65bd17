"""Docker's rules for users."""

import pytest

from cluster.errors import InvalidArgument
from worker.runtime.users import User, resolve_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\n# comment:x:9:9\nalice:x:1000:1001::/home/alice:/bin/sh\nbroken\n"
GROUP = "root:x:0:\nwheel:x:10:root,alice\nstaff:x:50:alice\nalice:x:1001:\n"


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        ("", User(uid=0, gid=0, groups=(0, 10), home="/root")),
        ("root", User(uid=0, gid=0, groups=(0, 10), home="/root")),
        ("alice", User(uid=1000, gid=1001, groups=(1001, 10, 50), home="/home/alice")),
        ("1000", User(uid=1000, gid=1001, groups=(1001, 10, 50), home="/home/alice")),
        ("alice:staff", User(uid=1000, gid=50, groups=(50,), home="/home/alice")),
        ("1000:7", User(uid=1000, gid=7, groups=(7,), home="/home/alice")),
        ("7777", User(uid=7777, gid=0, groups=(0,), home="/")),
        ("7777:8888", User(uid=7777, gid=8888, groups=(8888,), home="/")),
    ],
)
def test_users(user: str, wanted: User) -> None:
    assert resolve_user(user, (), PASSWD, GROUP) == wanted


def test_an_image_without_password_file() -> None:
    assert resolve_user("", (), "", "") == User(uid=0, gid=0, groups=(0,), home="/root")
    assert resolve_user("5:6", ("7",), "", "") == User(uid=5, gid=6, groups=(6, 7), home="/")


def test_added_groups() -> None:
    assert resolve_user("alice", ("wheel", "99"), PASSWD, GROUP).groups == (1001, 10, 50, 99)


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("mallory", "unable to find user mallory"),
        ("alice:nobody", "unable to find group nobody"),
        ("4294967296", "must be in range"),
        ("comment", "unable to find user"),
    ],
)
def test_refusals(user: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        resolve_user(user, (), PASSWD, GROUP)
