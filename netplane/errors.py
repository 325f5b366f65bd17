"""What can go wrong with a node's network, each with its HTTP status and words for the user."""

from cluster.errors import Conflict, Forbidden, InvalidArgument, NotFound, ShoalError, Unavailable


class NetworkError(ShoalError):
    """The kernel refused, or a part of it that Shoal needs is missing."""


class NetworkNotFound(NetworkError, NotFound):
    """This node knows no such network."""

    def __init__(self, network: str) -> None:
        super().__init__(f"network {network} not found")


class NetworkNotReady(NetworkError, Unavailable):
    """A cluster network has not reached this node, or the node is in no cluster."""


class NetworkInUse(NetworkError, Conflict):
    """The network, its name or its subnet is in use."""


class PredefinedNetwork(NetworkError, Forbidden):
    """The network belongs to the engine."""


class InvalidNetwork(NetworkError, InvalidArgument):
    """The network or the sandbox can't be meant as written."""


class AddressUnavailable(NetworkError, Conflict):
    """No free address is left, or the wanted one is taken."""


class PortUnavailable(NetworkError, Conflict):
    """A host port is taken."""
