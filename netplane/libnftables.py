"""A thin seam over libnftables.so.1: run nft commands as one transaction, in this process."""

import ctypes
import threading
from typing import Protocol

from netplane.errors import NetworkError


class Rules(Protocol):
    """Where the host's rules go."""

    def run(self, commands: str) -> None:
        """Carry out nft commands, all or nothing. Raises NetworkError with nft's words."""

    def list(self, what: str) -> str:
        """What `nft list …` prints; raises NetworkError when there is no such thing."""

    def close(self) -> None:
        """Let go of the namespace."""


class LibNftables:
    """An nft context of the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise NetworkError(f"libnftables is missing (Debian: libnftables1): {error}") from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._lock = threading.Lock()
        self._context: int | None = library.nft_ctx_new(0)
        if not self._context:
            raise NetworkError("libnftables gave no context")
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> None:
        """Carry out nft commands, all or nothing."""
        self._run(commands)

    def list(self, what: str) -> str:
        """What `nft list …` prints; raises NetworkError when there is no such thing."""
        return self._run(f"list {what}\n")

    def _run(self, commands: str) -> str:
        with self._lock:
            if self._context is None:
                raise NetworkError("the nft context is closed")
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
            error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NetworkError(f"nftables: {error.decode(errors='replace').strip()}")
        return output.decode(errors="replace")

    def close(self) -> None:
        """Free the context; it keeps its namespace alive."""
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None
