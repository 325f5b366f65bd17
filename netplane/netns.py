"""Network namespaces without a fork: made in a thread that ends, kept by a bind mount."""

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from netplane.errors import NamespaceTaken, NetworkError

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_THREAD_NAMESPACE = "/proc/thread-self/ns/net"
_CLAIM = b"\0shoal-netplane"


def _check(result: int, what: str) -> None:
    if result < 0:
        errno = ctypes.get_errno()
        raise NetworkError(f"{what}: {os.strerror(errno)}")


def claim() -> socket.socket:
    """Claim the process's network namespace for one network plane; close the socket to let go.

    Two would take each other's rules and devices away. The name is one of the namespace's own, and goes with
    the process, however that ends. Raises NamespaceTaken.
    """
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        mark.bind(_CLAIM)
    except OSError as error:
        mark.close()
        if error.errno == errno.EADDRINUSE:
            raise NamespaceTaken from error
        raise
    return mark


def make_namespace(path: Path) -> int:
    """Move the calling thread into a new namespace, mount that at `path`, and return a descriptor of it."""
    _check(_libc.unshare(_CLONE_NEWNET), "making a network namespace")
    path.touch(exist_ok=True)
    _check(
        _libc.mount(_THREAD_NAMESPACE.encode(), str(path).encode(), None, _MS_BIND, None),
        f"mounting a network namespace at {path}",
    )
    return os.open(_THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


def enter_namespace(descriptor: int) -> None:
    """Move the calling thread into a namespace. The thread must end afterwards."""
    _check(_libc.setns(descriptor, _CLONE_NEWNET), "entering a network namespace")


def remove_namespace(path: Path) -> None:
    """Unmount and unlink; the kernel takes the namespace apart once no process or socket is in it."""
    _libc.umount2(str(path).encode(), _MNT_DETACH)
    path.unlink(missing_ok=True)


def is_namespace(path: Path) -> bool:
    """True if a namespace is mounted at `path` (after a power loss only the empty file is left)."""
    try:
        return path.stat().st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own that ends with it, so that it may change its namespace.

    When the caller is cancelled, the work goes on to its end first and the caller waits for it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_value: Callable[[Any], None], value: object) -> None:
        if not future.done():
            set_value(value)

    def run() -> None:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            outcome: tuple[Callable[[Any], None], object] = (future.set_exception, error)
        else:
            outcome = (future.set_result, value)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="netplane-namespace", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait((future,))
        if not future.cancelled():
            future.exception()
        raise


async def inside(path: Path, work: Callable[[], T]) -> T:
    """Run `work` in the namespace mounted at `path`."""

    def run() -> T:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter_namespace(descriptor)
        finally:
            os.close(descriptor)
        return work()

    return await in_thread(run)
