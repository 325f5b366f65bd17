"""AppArmor: Docker's default profile, loaded where the kernel has AppArmor, under Docker's name for it.

The rules are what containers have beyond their namespaces, capabilities and seccomp filter: no mounting, no
writing to the kernel's settings, signals and tracing only among the containers.
"""

import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from cluster.errors import ShoalError

log = logging.getLogger("shoal.runtime")

PROFILE = "docker-default"
UNCONFINED = "unconfined"
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
LOADED = Path("/sys/kernel/security/apparmor/profiles")
_PARSER_PLACES = "/usr/sbin:/sbin:/usr/bin:/bin"

_RULES = """\
#include <tunables/global>

profile {name} flags=(attach_disconnected,mediate_deleted) {{
  #include <abstractions/base>

  network,
  capability,
  file,
  umount,

  # From the node's own processes: the container's monitor and runtime, the operator.
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send, receive) peer={name},
  ptrace (trace, read, tracedby, readby) peer={name},

  deny mount,
  deny @{{PROC}}/[a-z]* w,
  deny @{{PROC}}/{{acpi,bus,driver,fs,irq,scsi,sys,tty}}/** w,
  deny @{{PROC}}/{{sysrq-trigger,kcore}} rwklx,
  deny /sys/[a-eg-z]*/** wklx,
  deny /sys/fs/{{bpf,btrfs,ext4,fuse,pstore,selinux,smackfs,xfs}}/** wklx,
  deny /sys/{{firmware,devices/virtual/powercap,kernel/security}}/** rwklx,
}}
"""


class ProfileNotLoaded(ShoalError):
    """AppArmor is on and its profile for containers can't be loaded."""


def profile_text(name: str = PROFILE) -> str:
    """The profile as apparmor_parser reads it."""
    return _RULES.format(name=name)


@cache
def parser() -> str | None:
    """The program that loads profiles; without it, as in dockerd, the node counts as one without AppArmor."""
    return shutil.which("apparmor_parser", path=f"{os.environ.get('PATH', '')}:{_PARSER_PLACES}")


def supported(enabled: Path = ENABLED) -> bool:
    """Whether containers here are to be confined by AppArmor."""
    try:
        on = enabled.read_text().startswith("Y")
    except OSError:
        return False
    if on and parser() is None:
        _warn_once()
        return False
    return on


@cache
def _warn_once() -> None:
    log.warning("AppArmor is on, but containers run without its profile: install the package apparmor")


def ensure_loaded(loaded: Path = LOADED) -> None:
    """Load the default profile unless the kernel has it. Raises ProfileNotLoaded."""
    try:
        if any(line.startswith(f"{PROFILE} ") for line in loaded.read_text().splitlines()):
            return
    except OSError as error:
        raise ProfileNotLoaded(f"can't read AppArmor's profiles: {error}") from error
    program = parser()
    if program is None:
        raise ProfileNotLoaded("apparmor_parser is missing: install the package apparmor")
    made = subprocess.run(
        [program, "--replace", "--skip-cache"],
        input=profile_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise ProfileNotLoaded(f"AppArmor profile {PROFILE} could not be loaded: {made.stderr.strip()}")
    log.info("loaded the AppArmor profile for containers", extra={"profile": PROFILE})
