"""Device nodes in a container, and which devices its control group lets it use."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import InvalidArgument
from worker.runtime.model import ContainerConfig, Device

_OWN = ("console", "fd", "fuse", "mqueue", "pts", "shm", "stderr", "stdin", "stdout")
"""What /dev of a container has by itself, or must not have of the host."""
_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")
_ALL: dict[str, object] = {"allow": True, "access": "rwm"}


def nodes(config: ContainerConfig) -> list[dict[str, Any]]:
    """The bundle's `linux.devices`. Raises InvalidArgument for what is no device."""
    return [_node(device) for device in _devices(config)]


def rules(config: ContainerConfig, usual: list[dict[str, object]]) -> list[dict[str, object]]:
    """The bundle's `linux.resources.devices`: `usual`, and what the container is given."""
    if config.privileged:
        return [_ALL]
    found = list(usual)
    for device in config.devices:
        for each in _expand(device):
            node = _node(each)
            numbers = {"type": node["type"], "major": node["major"], "minor": node["minor"]}
            found.append({"allow": True, **numbers, "access": each.permissions})
    return found + [_parse(text) for text in config.device_rules]


def _parse(text: str) -> dict[str, object]:
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    rule: dict[str, object] = {"allow": True, "type": match[1], "access": match[4]}
    for name, number in (("major", match[2]), ("minor", match[3])):
        if number != "*":
            rule[name] = int(number)
    return rule


def _devices(config: ContainerConfig) -> Iterator[Device]:
    if config.privileged:
        yield from _of_host()
    for device in config.devices:
        yield from _expand(device)


def _of_host() -> Iterator[Device]:
    for entry in sorted(os.scandir("/dev"), key=lambda item: item.name):
        if entry.name in _OWN or entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _expand(Device(source=entry.path, target=entry.path))
        elif _is_device(entry.stat(follow_symlinks=False).st_mode):
            yield Device(source=entry.path, target=entry.path)


def _expand(device: Device) -> Iterator[Device]:
    """A directory stands for the devices in it."""
    source = Path(device.source)
    try:
        if not source.is_dir():
            yield device
            return
    except OSError as error:
        raise _refusal(device, error) from error
    for path in sorted(source.rglob("*")):
        if not path.is_symlink() and _is_device(path.lstat().st_mode):
            target = f"{device.target.rstrip('/')}/{path.relative_to(source)}"
            yield Device(source=str(path), target=target, permissions=device.permissions)


def _node(device: Device) -> dict[str, Any]:
    try:
        info = os.stat(device.source)
    except OSError as error:
        raise _refusal(device, error) from error
    if not _is_device(info.st_mode):
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{device.source}": '
            "not a device node"
        )
    return {
        "path": device.target,
        "type": "b" if stat.S_ISBLK(info.st_mode) else "c",
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def _is_device(mode: int) -> bool:
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


def _refusal(device: Device, error: OSError) -> InvalidArgument:
    return InvalidArgument(
        f'error gathering device information while adding custom device "{device.source}": {error.strerror}'
    )
