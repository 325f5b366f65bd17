"""journald on this node: whether its socket is there for conmon to write to."""

from pathlib import Path

from cluster.errors import InvalidArgument

SOCKET = Path("/run/systemd/journal/socket")


def available(socket: Path = SOCKET) -> bool:
    """Whether this node has a journal."""
    return socket.is_socket()


def must_be_available(socket: Path = SOCKET) -> None:
    """Raises InvalidArgument, in dockerd's words."""
    if not available(socket):
        raise InvalidArgument("journald is not enabled on this host")
