"""Keeps the node's process for the PROXY protocol (`netplane.proxy_protocol`) while a port needs it.

It goes on while the daemon restarts, which finds it again by a file. Its methods block: run them in a thread.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from netplane.errors import NetworkError

_PATIENCE = 10.0  # seconds until it listens


class ProxyEnd:
    """Tells when a process has ended, once. Made in the event loop."""

    def __init__(self, pid: int, tell: Callable[[], None]) -> None:
        self.pid = pid
        self._tell = tell
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._descriptor = -1
            asyncio.get_running_loop().call_soon(tell)
        else:
            asyncio.get_running_loop().add_reader(self._descriptor, self._ended)

    def close(self) -> None:
        """Tell no more."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _ended(self) -> None:
        self.close()
        self._tell()


class ProxyKeeper:
    """See the module."""

    def __init__(self, run_dir: Path) -> None:
        self._state = run_dir / "proxy-protocol.json"
        self._child: subprocess.Popen[bytes] | None = None
        self._descriptor = -1  # a pidfd of the process that is kept
        self.pid = 0
        """Its id; 0 while there is none."""

    def found(self) -> Mapping[str, int]:
        """Where one of an earlier run listens; nowhere if there is none."""
        found = self._adopt() if self._descriptor < 0 else self._read()
        return found[1] if found is not None and self._alive() else {}

    def ensure(self) -> Mapping[str, int]:
        """Have one; returns the ports where it listens, by version of the protocol."""
        if found := self.found():
            return found
        self.forget()
        self._state.unlink(missing_ok=True)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "netplane.proxy_protocol", str(self._state)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _PATIENCE
        while (adopted := self._adopt()) is None:
            if self._child.poll() is not None or time.monotonic() > deadline:
                self._child.kill()
                self._child.wait()
                raise NetworkError("the process for the PROXY protocol did not come up")
            time.sleep(0.01)
        return adopted[1]

    def release(self) -> None:
        """Nobody needs it any more: it ends with its last connection. None there is no error."""
        if self._descriptor < 0:
            self._adopt()
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)
        self._state.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Let go of it; it goes on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.pid = 0
        if self._child is not None:
            self._child.poll()  # reaped if it has ended

    def _adopt(self) -> tuple[int, Mapping[str, int]] | None:
        found = self._read()
        if found is None:
            return None
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(found[0])
            # Looked at after it is held, so that it is no other process by then.
            words = Path(f"/proc/{found[0]}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(self._state) in words:
                self._descriptor, self.pid = descriptor, found[0]
                return found
            os.close(descriptor)
        return None

    def _alive(self) -> bool:
        if self._descriptor < 0:
            return False
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        return not waiting.poll(0)

    def _read(self) -> tuple[int, Mapping[str, int]] | None:
        try:
            state = json.loads(self._state.read_text())
        except FileNotFoundError:
            return None
        return state["pid"], state["ports"]
