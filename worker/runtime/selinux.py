"""SELinux contexts of containers, on nodes that have SELinux."""

from pathlib import Path

from cluster.errors import InvalidArgument

ENFORCE = Path("/sys/fs/selinux/enforce")
_PARTS = ("user", "role", "type", "level")
_FILES = "container_file_t"  # of the package container-selinux
_DEFAULT = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}


def supported(enforce: Path = ENFORCE) -> bool:
    """Whether this kernel runs SELinux."""
    return enforce.exists()


def mount_label(options: dict[str, str]) -> str:
    """The context of the container's own files, which its processes may use; "" when it has no context."""
    if not any(options.get(part) for part in _PARTS):
        return ""
    user, level = options.get("user") or _DEFAULT["user"], options.get("level") or _DEFAULT["level"]
    return f"{user}:object_r:{_FILES}:{level}"


def process_label(options: dict[str, str], *, available: bool) -> str:
    """The context for `{"type": …}` and the like over container-selinux's usual one; "" for none.

    Raises InvalidArgument on a node without SELinux: what a user wants confined must not run unconfined.
    """
    given = {part: options[part] for part in _PARTS if options.get(part)}
    if not given:
        return ""
    if not available:
        raise InvalidArgument("SELinux labels are asked for, and this node has no SELinux")
    return ":".join((_DEFAULT | given)[part] for part in _PARTS)
