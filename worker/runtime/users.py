"""Who a container runs as: Docker's rules for `user[:group]` and supplementary groups."""

from collections.abc import Iterator, Sequence

from cluster.errors import InvalidArgument
from worker.runtime.model import Struct

_MAX_ID = (1 << 31) - 1


class User(Struct, frozen=True):
    """Numeric identity of the first process."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def _records(text: str, fields: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        parts = line.strip().split(":")
        if len(parts) >= fields and not line.startswith("#"):
            yield parts


def _number(text: str) -> int | None:
    if not text.isascii() or not text.isdigit():
        return None
    if int(text) > _MAX_ID:
        raise InvalidArgument(f"user and group ids must be in range 0-{_MAX_ID}: {text}")
    return int(text)


def resolve_user(user: str, groups: Sequence[str], passwd: str, group: str) -> User:
    """The identity for `user` ("", "name", "uid", "name:group", "uid:gid") given the image's /etc files.

    A number need not be in /etc/passwd (its group is then 0); a name must be. With an explicit group there
    are no supplementary groups from /etc/group. `groups` are added (names or numbers).
    """
    name, colon, group_name = user.partition(":")
    uid, gid, home, login = _find_user(name or "0", passwd, user)
    extra: list[int] = []
    if colon and group_name:
        gid = _find_group(group_name, group)
    elif login:
        extra = [number for number, members in _groups(group) if login in members]
    extra += [_find_group(item, group) for item in groups]
    # The primary group first, each group once.
    return User(uid=uid, gid=gid, groups=tuple(dict.fromkeys([gid, *extra])), home=home)


def _find_user(name: str, passwd: str, asked: str) -> tuple[int, int, str, str]:
    number = _number(name)
    for parts in _records(passwd, 4):
        if not (parts[2].isdigit() and parts[3].isdigit()):
            continue
        if parts[0] == name or (number is not None and int(parts[2]) == number):
            home = parts[5] if len(parts) > 5 and parts[5] else "/"
            return int(parts[2]), int(parts[3]), home, parts[0]
    if number is None:
        raise InvalidArgument(
            f"unable to find user {asked.partition(':')[0]}: no matching entries in passwd file"
        )
    return number, 0, "/root" if number == 0 else "/", "root" if number == 0 else ""


def _groups(group: str) -> Iterator[tuple[int, list[str]]]:
    for parts in _records(group, 3):
        if parts[2].isdigit():
            yield int(parts[2]), parts[3].split(",") if len(parts) > 3 else []


def _find_group(name: str, group: str) -> int:
    number = _number(name)
    if number is not None:
        return number
    for parts in _records(group, 3):
        if parts[0] == name and parts[2].isdigit():
            return int(parts[2])
    raise InvalidArgument(f"unable to find group {name}: no matching entries in group file")
