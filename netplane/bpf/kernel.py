"""bpf(2): maps, programs, and what is attached to a cgroup. Layouts are those of linux/bpf.h."""

import contextlib
import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from netplane.errors import NetworkError

HASH, SOCKET_STORAGE = 1, 24
_NO_PREALLOC = 1
_ALLOW_MULTI = 2
_SOCKET_ADDRESS = 18  # BPF_PROG_TYPE_CGROUP_SOCK_ADDR

_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _PROG_LOAD = 0, 1, 2, 3, 4, 5
_ATTACH, _DETACH, _PROG_BY_ID, _MAP_BY_ID, _INFO, _QUERY, _BTF_LOAD = 8, 9, 13, 14, 15, 16, 18
_UPDATE_BATCH = 26
_SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351, "armv7l": 386}

_libc = ctypes.CDLL(None, use_errno=True)


class BpfError(NetworkError):
    """The kernel refused. `errno` is its reason."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"bpf: {what}: {os.strerror(number)}")
        self.errno = number


def _bpf(command: int, attributes: bytes, what: str) -> tuple[int, bytes]:
    """One call; returns its result and the attributes as the kernel left them."""
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise BpfError(errno.ENOSYS, f"{what} on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(number, command, buffer, len(attributes))
    if result < 0:
        raise BpfError(ctypes.get_errno(), what)
    return result, buffer.raw


def _address(buffer: "ctypes.Array[ctypes.c_char]") -> int:
    return ctypes.addressof(buffer)


class Map:
    """A hash map by its descriptor."""

    def __init__(self, descriptor: int, key_size: int, value_size: int) -> None:
        self.descriptor = descriptor
        self._key_size = key_size
        self._value_size = value_size

    def close(self) -> None:
        """Let go of it: programs that use it keep it."""
        os.close(self.descriptor)

    def put(self, key: bytes, value: bytes) -> None:
        """Set one element."""
        keys, values = (
            ctypes.create_string_buffer(key, len(key)),
            ctypes.create_string_buffer(value, len(value)),
        )
        _bpf(
            _UPDATE,
            struct.pack("=IIQQQ", self.descriptor, 0, _address(keys), _address(values), 0),
            "setting an element of a map",
        )

    def put_all(self, elements: Mapping[bytes, bytes]) -> None:
        """Set many; a few one by one, more in one call where the kernel can (since Linux 5.6)."""
        if len(elements) > 8:
            all_keys, all_values = b"".join(elements), b"".join(elements.values())
            keys = ctypes.create_string_buffer(all_keys, len(all_keys))
            values = ctypes.create_string_buffer(all_values, len(all_values))
            _bpf(
                _UPDATE_BATCH,
                struct.pack(
                    "=QQQQIIQQ",
                    0,
                    0,
                    _address(keys),
                    _address(values),
                    len(elements),
                    self.descriptor,
                    0,
                    0,
                ),
                "setting elements of a map",
            )
            return
        for key, value in elements.items():
            self.put(key, value)

    def take(self, keys: Iterable[bytes]) -> None:
        """Take elements out; none there is no error."""
        for key in keys:
            buffer = ctypes.create_string_buffer(key, len(key))
            try:
                _bpf(
                    _DELETE,
                    struct.pack("=IIQQQ", self.descriptor, 0, _address(buffer), 0, 0),
                    "taking an element out of a map",
                )
            except BpfError as error:
                if error.errno != errno.ENOENT:
                    raise

    def get(self, key: bytes) -> bytes | None:
        """An element's value; None if there is none."""
        wanted = ctypes.create_string_buffer(key, len(key))
        found = ctypes.create_string_buffer(self._value_size)
        try:
            _bpf(
                _LOOKUP,
                struct.pack("=IIQQQ", self.descriptor, 0, _address(wanted), _address(found), 0),
                "reading an element of a map",
            )
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return found.raw

    def listed(self) -> list[bytes]:
        """All keys."""
        found: list[bytes] = []
        key = ctypes.create_string_buffer(self._key_size)
        following = ctypes.create_string_buffer(self._key_size)
        address = 0
        while True:
            try:
                _bpf(
                    _NEXT_KEY,
                    struct.pack("=IIQQQ", self.descriptor, 0, address, _address(following), 0),
                    "reading a map",
                )
            except BpfError as error:
                if error.errno == errno.ENOENT:
                    return found
                raise
            found.append(following.raw)
            key.raw = following.raw
            address = _address(key)


def make_map(name: str, key_size: int, value_size: int, entries: int) -> Map:
    """A new hash map."""
    attributes = struct.pack("=IIIIIII", HASH, key_size, value_size, entries, _NO_PREALLOC, 0, 0)
    descriptor, _ = _bpf(_MAP_CREATE, attributes + _name(name), f"making the map {name}")
    return Map(descriptor, key_size, value_size)


def make_socket_storage(name: str, value_size: int) -> int:
    """The descriptor of a new map that has a value for each socket, which goes with it. The kernel wants its
    types told (BTF): an int, and a structure of that size."""
    types = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32) + struct.pack("=III", 5, 4 << 24, value_size)
    strings = b"\0int\0peer\0"
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    blob = ctypes.create_string_buffer(header + types + strings, len(header + types + strings))
    btf, _ = _bpf(
        _BTF_LOAD, struct.pack("=QQIII", _address(blob), 0, len(blob), 0, 0), "telling the types of a map"
    )
    try:
        attributes = struct.pack("=IIIIIII", SOCKET_STORAGE, 4, value_size, 0, _NO_PREALLOC, 0, 0)
        attributes += _name(name) + struct.pack("=IIII", 0, btf, 1, 2)
        descriptor, _ = _bpf(_MAP_CREATE, attributes, f"making the map {name}")
    finally:
        os.close(btf)
    return descriptor


def load_program(name: str, instructions: bytes, attach_type: int) -> int:
    """The descriptor of a program for a hook of socket addresses, checked and translated by the kernel."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_text = ctypes.create_string_buffer(b"GPL")  # the helpers it calls want that
    log = ctypes.create_string_buffer(1 << 16)

    def attributes(level: int) -> bytes:
        logged = (level, len(log), _address(log)) if level else (0, 0, 0)
        head = struct.pack(
            "=IIQQIIQII",
            _SOCKET_ADDRESS,
            len(instructions) // 8,
            _address(code),
            _address(license_text),
            *logged,
            0,
            0,
        )
        return head + _name(name) + struct.pack("=II", 0, attach_type)

    try:
        descriptor, _ = _bpf(_PROG_LOAD, attributes(0), f"loading {name}")
    except BpfError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        # Once more, to hear why.
        descriptor = _load_telling(attributes(1), name, log)
    return descriptor


def _load_telling(attributes: bytes, name: str, log: "ctypes.Array[ctypes.c_char]") -> int:
    try:
        return _bpf(_PROG_LOAD, attributes, f"loading {name}")[0]
    except BpfError as error:
        raise BpfError(error.errno, f"loading {name}: {log.value.decode(errors='replace')[-400:]}") from error


def attach(directory: Path, program: int, attach_type: int) -> None:
    """Let a program run for all processes below a cgroup, beside others."""
    with _opened(directory) as cgroup:
        _bpf(
            _ATTACH,
            struct.pack("=IIIIII", cgroup, program, attach_type, _ALLOW_MULTI, 0, 0),
            f"attaching to {directory}",
        )


def detach(directory: Path, program: int, attach_type: int) -> None:
    """Undo `attach`."""
    with _opened(directory) as cgroup:
        _bpf(
            _DETACH,
            struct.pack("=IIIIII", cgroup, program, attach_type, 0, 0, 0),
            f"detaching from {directory}",
        )


def attached(directory: Path, attach_type: int) -> dict[str, int]:
    """The programs that are attached to a cgroup, by name: descriptors, which the caller closes."""
    identifiers = (ctypes.c_uint32 * 64)()
    with _opened(directory) as cgroup:
        _, answer = _bpf(
            _QUERY,
            struct.pack("=IIIIQIIQ", cgroup, attach_type, 0, 0, ctypes.addressof(identifiers), 64, 0, 0),
            f"asking what is attached to {directory}",
        )
    (count,) = struct.unpack_from("=I", answer, 24)
    found: dict[str, int] = {}
    for identifier in identifiers[:count]:
        descriptor, _ = _bpf(_PROG_BY_ID, struct.pack("=III", identifier, 0, 0), "finding a program")
        info = _info(descriptor, 232)
        name = info[64:80].rstrip(b"\0").decode(errors="replace")
        if name in found:
            os.close(descriptor)
        else:
            found[name] = descriptor
    return found


def maps_of(program: int) -> dict[str, Map]:
    """The maps of a program, by name, which the caller closes."""
    identifiers = (ctypes.c_uint32 * 16)()
    info = _info(program, 232, struct.pack("=IQ", 16, ctypes.addressof(identifiers)))
    (count,) = struct.unpack_from("=I", info, 52)
    found: dict[str, Map] = {}
    for identifier in identifiers[:count]:
        descriptor, _ = _bpf(_MAP_BY_ID, struct.pack("=III", identifier, 0, 0), "finding a map")
        told = _info(descriptor, 88)
        key_size, value_size = struct.unpack_from("=II", told, 8)
        found[told[24:40].rstrip(b"\0").decode(errors="replace")] = Map(descriptor, key_size, value_size)
    return found


def _info(descriptor: int, size: int, map_ids: bytes = b"") -> bytes:
    given = bytes(52) + map_ids if map_ids else b""
    buffer = ctypes.create_string_buffer(given.ljust(size, b"\0"), size)
    _bpf(_INFO, struct.pack("=IIQ", descriptor, size, _address(buffer)), "asking about an object")
    return buffer.raw


def _name(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """A directory's descriptor for a moment."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BpfError(error.errno or errno.EIO, f"opening {directory}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
