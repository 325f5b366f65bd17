"""Compiling a seccomp profile to BPF once, instead of in every start of a container.

libseccomp takes about 12 ms for the default profile and its three x86 architectures: as much as all else that
crun does. crun takes a ready filter in the annotation `run.oci.seccomp_bpf_data`; what comes out here is byte
for byte what crun would make (a test compares them). Other runtimes ignore the annotation and compile.
"""

import base64
import ctypes
import logging
import os
from functools import lru_cache
from typing import Any

import msgspec

log = logging.getLogger("shoal.runtime")

ANNOTATION = "run.oci.seccomp_bpf_data"

_ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
_UNKNOWN_SYSCALL = -1
_EEXIST = 17


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        log.warning("libseccomp.so.2 is missing: containers start more slowly")
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare)
    )  # fmt: skip
    return library


@lru_cache(maxsize=16)
def compiled(profile: bytes) -> str:
    """The base64 filter of an OCI seccomp section; empty when it has to be left to the OCI runtime."""
    library = _library()
    section = msgspec.json.decode(profile)
    if library is None or section.get("flags"):
        return ""
    try:
        return base64.b64encode(_compile(library, section)).decode()
    except (KeyError, OSError) as error:
        log.warning("seccomp profile left to the OCI runtime", extra={"why": str(error)})
        return ""


def _action(name: str, error: int | None) -> int:
    return _ACTIONS[name] | (1 if error is None else error) if name == "SCMP_ACT_ERRNO" else _ACTIONS[name]


def _compile(library: ctypes.CDLL, section: dict[str, Any]) -> bytes:
    default = _action(section["defaultAction"], section.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise OSError("seccomp_init failed")
    try:
        for name in section["architectures"]:
            token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            result = library.seccomp_arch_add(context, token)
            if result < 0 and result != -_EEXIST:
                raise OSError(-result, f"architecture {name}")
        for rule in section["syscalls"]:
            _add(library, context, rule, default)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: dict[str, Any], default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    arguments = rule.get("args") or []
    compares = [
        _Compare(item["index"], _OPERATORS[item["op"]], item["value"], item.get("valueTwo", 0))
        for item in arguments
    ]
    # Several conditions on one argument are alternatives: a rule each.
    indexes = [item["index"] for item in arguments]
    groups = [compares] if len(set(indexes)) == len(indexes) else [[item] for item in compares]
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN_SYSCALL:
            continue  # newer than this libseccomp
        for group in groups:
            array = (_Compare * len(group))(*group)
            result = library.seccomp_rule_add_array(context, action, number, len(group), array)
            if result < 0:
                raise OSError(-result, f"rule for {name}")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp")
    try:
        result = library.seccomp_export_bpf(context, descriptor)
        if result < 0:
            raise OSError(-result, "seccomp_export_bpf")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
