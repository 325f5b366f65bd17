"""Service addresses at connect(), for the TCP of all containers of this node.

The programs are attached to the cgroup that all its containers are in, and keep their maps: both outlive the
daemon, whose next run takes them over, and go when the node leaves the cluster. A kernel that can't is no
error: then the rules in each sandbox do it all.
"""

import contextlib
import errno
import hashlib
import logging
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from netplane.bpf import kernel, programs
from netplane.bpf.kernel import BpfError, Map

log = logging.getLogger("shoal.netplane")

# Raised when programs or maps change, so that a newer daemon does not take over an older one's.
_LAYOUT = "shoal2"
_HOOKS = {
    f"{_LAYOUT}_connect4": programs.INET4_CONNECT,
    f"{_LAYOUT}_connect6": programs.INET6_CONNECT,
    f"{_LAYOUT}_peer4": programs.INET4_GETPEERNAME,
    f"{_LAYOUT}_peer6": programs.INET6_GETPEERNAME,
}
_SPACES, _SIZES, _BACKENDS = "spaces", "sizes", "backends"
# Key and value in bytes, and at most so many: each costs 16 bytes also when it is not there. A node that
# knows more leaves all to the rules.
_SHAPES = {
    _SPACES: (8, 8 * programs.NETWORKS, 1 << 14),
    _SIZES: (24, 8, 1 << 15),
    _BACKENDS: (32, 16, 1 << 17),
}
_MOUNT = Path("/sys/fs/cgroup")
_KEEPER = "connect"
"""A child that keeps the cgroup from being removed with the last container."""


class Connect:
    """See the module. Its methods touch the kernel."""

    def __init__(self, cgroup: Path, maps: dict[str, Map]) -> None:
        self._cgroup = cgroup
        self._maps = maps

    @staticmethod
    def open(cgroup: Path) -> "Connect":
        """Attach the programs to a cgroup, or take over those that are there. Raises BpfError."""
        try:
            (cgroup / _KEEPER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BpfError(error.errno or 0, f"making {cgroup}") from error
        maps = _taken_over(cgroup)
        if maps is None:
            _detach_all(cgroup)
            maps = _attached(cgroup)
        return Connect(cgroup, maps)

    def close(self) -> None:
        """Let go: what is attached stays."""
        for each in self._maps.values():
            each.close()
        self._maps = {}

    def remove(self) -> None:
        """Take the programs away, and the cgroup and its parents if nothing else needs them."""
        self.close()
        _detach_all(self._cgroup)
        with contextlib.suppress(OSError):  # in use; the hierarchy's root always is
            for each in (self._cgroup / _KEEPER, self._cgroup, *self._cgroup.parents):
                each.rmdir()

    def enter(self, cookie: int, networks: Sequence[str]) -> None:
        """A namespace is in these networks from now on."""
        keys = [_network(each) for each in networks[: programs.NETWORKS]]
        value = b"".join(keys).ljust(8 * programs.NETWORKS, b"\0")
        self._maps[_SPACES].put(struct.pack("=Q", cookie), value)

    def leave(self, cookie: int) -> None:
        """A namespace is gone."""
        self._maps[_SPACES].take([struct.pack("=Q", cookie)])

    def keep(self, cookies: Iterable[int]) -> None:
        """Forget namespaces of an earlier run that are not among these."""
        known = {struct.pack("=Q", cookie) for cookie in cookies}
        self._maps[_SPACES].take([key for key in self._maps[_SPACES].listed() if key not in known])

    def change(
        self, network_id: str, before: Mapping[bytes, Sequence[bytes]], after: Mapping[bytes, Sequence[bytes]]
    ) -> None:
        """Service addresses of a network have other backends: packed IPv4 or IPv6 addresses, by slot."""
        old_sizes, old = _elements(network_id, before)
        sizes, backends = _elements(network_id, after)
        # New slots first, and old ones last: who reads the size in between finds a backend.
        self._maps[_BACKENDS].put_all({k: v for k, v in backends.items() if old.get(k) != v})
        self._maps[_SIZES].put_all({k: _turn(k, v) for k, v in sizes.items() if old_sizes.get(k) != v})
        self._maps[_SIZES].take(old_sizes.keys() - sizes.keys())
        self._maps[_BACKENDS].take(old.keys() - backends.keys())

    def backends(self, network_id: str, address: bytes) -> list[bytes] | None:
        """What the kernel holds for a service's packed address; None if it does not know it."""
        key = _network(network_id) + _mapped(address)
        size = self._maps[_SIZES].get(key)
        if size is None:
            return None
        slots = range(struct.unpack_from("=I", size)[0])
        held = [self._maps[_BACKENDS].get(key + struct.pack("=II", slot, 0)) for slot in slots]
        return [each[-len(address) :] for each in held if each is not None]

    def write_whole(self, networks: Mapping[str, Mapping[bytes, Sequence[bytes]]]) -> None:
        """The service addresses of all networks, in place of any that are there."""
        sizes: dict[bytes, int] = {}
        backends: dict[bytes, bytes] = {}
        for network_id, vips in networks.items():
            of_sizes, of_backends = _elements(network_id, vips)
            sizes |= of_sizes
            backends |= of_backends
        self._maps[_BACKENDS].put_all(backends)
        self._maps[_SIZES].put_all({key: _turn(key, size) for key, size in sizes.items()})
        self._maps[_SIZES].take([key for key in self._maps[_SIZES].listed() if key not in sizes])
        self._maps[_BACKENDS].take([key for key in self._maps[_BACKENDS].listed() if key not in backends])


def sweep(cgroup: Path) -> None:
    """Take away what an earlier run may have left at a cgroup."""
    if (cgroup / _KEEPER).exists():
        Connect(cgroup, {}).remove()


def directory_of(cgroup: str) -> Path:
    """A cgroup's directory in the hierarchy of version 2. Raises BpfError where there is none."""
    mount = _MOUNT if (_MOUNT / "cgroup.controllers").exists() else _MOUNT / "unified"
    if not (mount / "cgroup.procs").exists():
        raise BpfError(errno.ENOENT, "no cgroup2 hierarchy is mounted")
    return mount / cgroup.lstrip("/")


def missing() -> str:
    """What this machine lacks, or ""; nothing stays."""
    try:
        directory_of("")
        maps, programs_made = _load()
    except BpfError as error:
        return str(error)
    for each in maps.values():
        each.close()
    for descriptor in programs_made.values():
        os.close(descriptor)
    return ""


def _network(network_id: str) -> bytes:
    return hashlib.blake2b(network_id.encode(), digest_size=8).digest()


def _mapped(address: bytes) -> bytes:
    return address if len(address) == 16 else bytes(10) + b"\xff\xff" + address


def _elements(
    network_id: str, vips: Mapping[bytes, Sequence[bytes]]
) -> tuple[dict[bytes, int], dict[bytes, bytes]]:
    sizes: dict[bytes, int] = {}
    backends: dict[bytes, bytes] = {}
    network = _network(network_id)
    for vip, addresses in vips.items():
        key = network + _mapped(vip)
        sizes[key] = len(addresses)
        for slot, address in enumerate(addresses):
            backends[key + struct.pack("=II", slot, 0)] = _mapped(address)
    return sizes, backends


def _turn(key: bytes, size: int) -> bytes:
    """A number of backends, and which one is the next: not the first one at each change."""
    begin = hashlib.blake2b(key + struct.pack("=I", size), digest_size=2).digest()
    return struct.pack("=II", size, int.from_bytes(begin, "big"))


def _taken_over(cgroup: Path) -> dict[str, Map] | None:
    """The maps of the programs that are attached, if all are this layout's."""
    maps: dict[str, Map] = {}
    for name, hook in _HOOKS.items():
        present = kernel.attached(cgroup, hook)
        try:
            if name not in present:
                return None
            if hook == programs.INET4_CONNECT:
                maps = kernel.maps_of(present[name])
        finally:
            for descriptor in present.values():
                os.close(descriptor)
    for name in [name for name in maps if name not in _SHAPES]:
        maps.pop(name).close()
    return maps if maps.keys() == _SHAPES.keys() else None


def _load() -> tuple[dict[str, Map], dict[str, int]]:
    """New maps and the descriptors of new programs."""
    maps: dict[str, Map] = {}
    made: dict[str, int] = {}
    peers = -1
    try:
        for name, shape in _SHAPES.items():
            maps[name] = kernel.make_map(name, *shape)
        peers = kernel.make_socket_storage("peers", 32)
        descriptors = {name: each.descriptor for name, each in maps.items()} | {"peers": peers}
        for name, hook in _HOOKS.items():
            ipv6 = hook in (programs.INET6_CONNECT, programs.INET6_GETPEERNAME)
            connecting = hook in (programs.INET4_CONNECT, programs.INET6_CONNECT)
            program = programs.connect(ipv6=ipv6) if connecting else programs.peer_name(ipv6=ipv6)
            made[name] = kernel.load_program(name, program.assemble(descriptors), hook)
    except BpfError:
        for each in maps.values():
            each.close()
        for descriptor in made.values():
            os.close(descriptor)
        raise
    finally:
        if peers >= 0:
            os.close(peers)
    return maps, made


def _attached(cgroup: Path) -> dict[str, Map]:
    maps, made = _load()
    try:
        for name, descriptor in made.items():
            kernel.attach(cgroup, descriptor, _HOOKS[name])
    except BpfError:
        for each in maps.values():
            each.close()
        _detach_all(cgroup)
        raise
    finally:
        for descriptor in made.values():
            os.close(descriptor)
    return maps


def _detach_all(cgroup: Path) -> None:
    """Detach whatever Shoal attached, in any layout."""
    for hook in _HOOKS.values():
        try:
            present = kernel.attached(cgroup, hook)
        except BpfError as error:
            log.debug("%s", error)
            continue
        for name, descriptor in present.items():
            try:
                if name.startswith("shoal"):
                    kernel.detach(cgroup, descriptor, hook)
            finally:
                os.close(descriptor)
