"""What a command in a running container is: its process, as the OCI runtime's exec takes it."""

from collections.abc import Sequence

import msgspec

from worker.runtime import apparmor, capabilities, rootfs
from worker.runtime.directory import ContainerPaths
from worker.runtime.users import resolve_user


def exec_process(
    paths: ContainerPaths,
    argv: Sequence[str],
    *,
    env: Sequence[str] = (),
    user: str = "",
    cwd: str = "",
    tty: bool = False,
    privileged: bool = False,
    fixed_env: Sequence[str] = (),
) -> bytes:
    """The container's own process, with other arguments. `fixed_env` are the variables that its maker set."""
    process = msgspec.json.decode((paths.bundle / "config.json").read_bytes())["process"]
    process["terminal"] = tty
    process["args"] = list(argv)
    merged = {item.partition("=")[0]: item for item in process["env"]}
    if tty:
        merged.setdefault("TERM", "TERM=xterm")
    if cwd:
        process["cwd"] = cwd
    if user:
        with rootfs.opened(paths.rootfs) as root:
            who = resolve_user(user, (), root.read_text("/etc/passwd"), root.read_text("/etc/group"))
        process["user"] = {"uid": who.uid, "gid": who.gid, "additionalGids": list(who.groups)}
        sets = process["capabilities"]
        sets["effective"] = sets["permitted"] = sets["bounding"] if who.uid == 0 else []
        if not any(item.startswith("HOME=") for item in fixed_env):
            merged["HOME"] = f"HOME={who.home}"
    merged |= {item.partition("=")[0]: item for item in env if "=" in item}
    process["env"] = list(merged.values())
    if privileged:
        every = sorted(capabilities.own())
        process["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
        if "apparmorProfile" in process:
            process["apparmorProfile"] = apparmor.UNCONFINED
    return msgspec.json.encode(process)
