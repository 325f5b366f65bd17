"""WireGuard devices of this node: the kernel's own, or wireguard-go's, which is one process a device.

Both say what they know of their peers, and take changes. A private key is made here, handed to the device,
and forgotten: it is on no disk, and goes with the device. A device of wireguard-go is as long as its process
lives, and the process as long as its device is; neither needs shoald.
"""

import base64
import binascii
import logging
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pyroute2 import WireGuard
from pyroute2.netlink.exceptions import NetlinkError as RouteError

from netplane import tunnel_links
from netplane.errors import NetworkError

log = logging.getLogger("shoal.netplane")

KERNEL, USERSPACE = "kernel", "userspace"
PROGRAM = "wireguard-go"
_SOCKETS = Path("/var/run/wireguard")
_TUN = Path("/dev/net/tun")
_PROBE = "shsprobe"
_PATIENCE = 5.0


@dataclass(frozen=True)
class Peer:
    """Who is at the other end. `key`: its public key, 32 bytes; `inside`: its address within the tunnel."""

    key: bytes
    address: str
    port: int
    inside: str
    greet: bool = False
    """Send something now and then, so that there is a session before any packet needs it."""


@dataclass
class Device:
    """What a device says of itself. `handshakes`: public key → when the last one was, in s; 0: never."""

    key: bytes
    port: int
    inside: dict[bytes, str] = field(default_factory=dict)  # public key → the peer's address in the tunnel
    handshakes: dict[bytes, int] = field(default_factory=dict)


class Method(Protocol):
    """A way to have WireGuard devices. Raises NetworkError, and OSError when a device does not answer."""

    name: str
    kind: str
    """The links' kind, as the kernel calls it."""

    def create(self, device: str) -> None:
        """Make a device that is down and has no key."""

    def configure(self, device: str, port: int) -> None:
        """Give a device a new key pair, and its port."""

    def change(
        self, device: str, gone: Sequence[bytes], new: Sequence[Peer], changed: Sequence[Peer]
    ) -> None:
        """Forget the peers with these keys, add new ones, and give others a new endpoint or habit.

        Of the last, sessions and addresses stay untouched: taking an address away for a moment loses packets.
        """

    def read(self, device: str) -> Device:
        """What the device knows."""


def new_private_key() -> bytes:
    """A private key, from the system's source of randomness."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """The public key that goes with a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def text_of(key: bytes) -> str:
    """A key as WireGuard's tools write it."""
    return base64.b64encode(key).decode()


def key_of(text: str) -> bytes | None:
    """The key that a text means; None if it means none."""
    try:
        key = base64.b64decode(text, validate=True)
        X25519PublicKey.from_public_bytes(key)
    except (binascii.Error, ValueError):
        return None
    return key if any(key) else None


def find_method() -> tuple[Method | None, str]:
    """How this machine can have WireGuard, and if it can't, why."""
    if not Path("/proc/sys/net/ipv6").exists():
        return None, "the kernel has no IPv6, which the tunnels use inside (boot without ipv6.disable=1)"
    if _in_kernel():
        return Kernel(), ""
    if shutil.which(PROGRAM) is None:
        return None, (
            "neither kernel nor system has WireGuard: `modprobe wireguard` (kernels from 5.6 have it), "
            "or install wireguard-go"
        )
    if not _TUN.exists():
        return None, f"wireguard-go needs {_TUN}, which is not here: `modprobe tun`"
    return Userspace(), ""


def _in_kernel() -> bool:
    try:
        tunnel_links.add(_PROBE, "wireguard")
    except NetworkError as error:
        log.debug("the kernel has no WireGuard: %s", error)
        return False
    tunnel_links.delete(_PROBE)
    return True


class Kernel:
    """The kernel's module, by generic netlink."""

    name = KERNEL
    kind = "wireguard"

    def create(self, device: str) -> None:
        """Make a device that is down and has no key."""
        tunnel_links.add(device, self.kind)

    def configure(self, device: str, port: int) -> None:
        """Give a device a new key pair, and its port."""
        self._set(device, private_key=text_of(new_private_key()), listen_port=port)

    def change(
        self, device: str, gone: Sequence[bytes], new: Sequence[Peer], changed: Sequence[Peer]
    ) -> None:
        """Forget, add and change peers."""
        for key in gone:
            self._set(device, peer={"public_key": text_of(key), "remove": True})
        for peer in (*new, *changed):
            wanted: dict[str, Any] = {
                "public_key": text_of(peer.key),
                "endpoint_addr": peer.address,
                "endpoint_port": peer.port,
                "persistent_keepalive": _keepalive(peer),
            }
            if peer in new:
                wanted["allowed_ips"] = [f"{peer.inside}/128"]
            self._set(device, peer=wanted)

    def read(self, device: str) -> Device:
        """What the device knows."""
        try:
            with WireGuard() as generic:
                parts = list(generic.info(device))
        except RouteError as error:
            raise NetworkError(f"asking {device}: {error}") from error
        found = Device(b"", 0)
        for part in parts:
            if public := part.get_attr("WGDEVICE_A_PUBLIC_KEY"):
                found.key = base64.b64decode(public)
            found.port = part.get_attr("WGDEVICE_A_LISTEN_PORT") or found.port
            for peer in part.get_attr("WGDEVICE_A_PEERS") or ():
                key = base64.b64decode(peer.get_attr("WGPEER_A_PUBLIC_KEY"))
                for allowed in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ():
                    found.inside[key] = str(allowed["addr"]).partition("/")[0]
                last = peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME") or {}
                found.handshakes[key] = int(last.get("tv_sec", 0))
        return found

    @staticmethod
    def _set(device: str, **settings: Any) -> None:
        try:
            with WireGuard() as generic:
                generic.set(device, **settings)
        except RouteError as error:
            raise NetworkError(f"setting up {device}: {error}") from error


class Userspace:
    """wireguard-go, by the text protocol of its control socket.

    Source: https://www.wireguard.com/xplatform/
    """

    name = USERSPACE
    kind = "tun"

    def create(self, device: str) -> None:
        """Start the process, which leaves its parent once the device is there."""
        done = subprocess.run(
            [PROGRAM, device],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            cwd="/",
        )
        if done.returncode:
            lines = done.stdout.decode(errors="replace").splitlines()
            said = [line for line in lines if line and line[0].isalnum()]  # it draws boxes, too
            raise NetworkError(f"{PROGRAM} {device} failed: {said[-1] if said else done.returncode}")

    def configure(self, device: str, port: int) -> None:
        """Give a device a new key pair, and its port."""
        self._set(device, [f"private_key={new_private_key().hex()}", f"listen_port={port}"])

    def change(
        self, device: str, gone: Sequence[bytes], new: Sequence[Peer], changed: Sequence[Peer]
    ) -> None:
        """Forget, add and change peers."""
        lines = [line for key in gone for line in (f"public_key={key.hex()}", "remove=true")]
        for peer in (*new, *changed):
            at = f"[{peer.address}]" if ":" in peer.address else peer.address
            lines += [
                f"public_key={peer.key.hex()}",
                f"endpoint={at}:{peer.port}",
                f"persistent_keepalive_interval={_keepalive(peer)}",
            ]
            if peer in new:
                lines.append(f"allowed_ip={peer.inside}/128")
        if lines:
            self._set(device, lines)

    def read(self, device: str) -> Device:
        """What the device knows."""
        found, key = Device(b"", 0), b""
        for name, value in self._ask(device, "get=1\n\n"):
            match name:
                case "private_key":
                    found.key = public_key(bytes.fromhex(value))
                case "listen_port":
                    found.port = int(value)
                case "public_key":
                    key = bytes.fromhex(value)
                    found.handshakes[key] = 0
                case "allowed_ip":
                    found.inside[key] = value.partition("/")[0]
                case "last_handshake_time_sec":
                    found.handshakes[key] = int(value)
        return found

    def _set(self, device: str, lines: Iterable[str]) -> None:
        self._ask(device, "set=1\n" + "".join(f"{line}\n" for line in lines) + "\n")

    @staticmethod
    def _ask(device: str, request: str) -> list[tuple[str, str]]:
        """Send one request; its answer as (name, value). Raises NetworkError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(_PATIENCE)
            try:
                control.connect(str(_SOCKETS / f"{device}.sock"))
                control.sendall(request.encode())
                answer = b""
                while not answer.endswith(b"\n\n") and (more := control.recv(1 << 16)):
                    answer += more
            except OSError as error:
                raise NetworkError(f"{PROGRAM} of {device} does not answer: {error}") from error
        pairs = [
            (name, value) for line in answer.decode().split("\n") for name, _, value in [line.partition("=")]
        ]
        errno = next((value for name, value in pairs if name == "errno"), "none")
        if errno != "0":
            raise NetworkError(f"{PROGRAM} of {device} refused a change (errno {errno})")
        return pairs


def _keepalive(peer: Peer) -> int:
    """Seconds between two keepalives; setting the first sends one at once, and so begins a handshake."""
    return 5 if peer.greet else 0
