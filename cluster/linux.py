"""The kernel's names that specs may use: capabilities, resource limits, sysctls of namespaces, signals."""

import re
import signal

_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = tuple(f"CAP_{name}" for name in _CAPABILITIES.split())
"""All capabilities, in the kernel's order (linux/capability.h)."""

RLIMITS = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}
"""What `--ulimit` takes (as docker/go-units), with the kernel's numbers (asm-generic/resource.h)."""

_SYSCTLS = frozenset(
    {
        "kernel.domainname",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    }
)
_RT_SIGNAL = re.compile(r"RTMIN(\+\d{1,2})?|RTMAX(-\d{1,2})?")
MAX_HOSTNAME = 64
"""Bytes of a host name (__NEW_UTS_LEN)."""


def capability(name: str) -> str | None:
    """`NET_ADMIN`, `cap_net_admin` as `CAP_NET_ADMIN`; `ALL` as it is; None for what is none."""
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    return full if full in CAPABILITIES else None


def namespaced_sysctl(name: str) -> bool:
    """True for a sysctl that a container has for itself; all others are the whole machine's."""
    name = name.replace("/", ".")
    return name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))


def is_signal(name: str) -> bool:
    """True for a signal's number or name, with or without SIG."""
    if name.isascii() and name.isdigit():
        return 1 <= int(name) <= signal.SIGRTMAX
    short = name.upper().removeprefix("SIG")
    return f"SIG{short}" in signal.Signals.__members__ or bool(_RT_SIGNAL.fullmatch(short))
