"""What can go wrong with a node's network, each with its HTTP status and words for the user."""

from cluster.errors import Conflict, Forbidden, InvalidArgument, NotFound, ShoalError, Unavailable


class NetworkError(ShoalError):
    """The kernel refused, or a part of it that Shoal needs is missing."""


class NetworkNotFound(NetworkError, NotFound):
    """This node knows no such network."""

    def __init__(self, network: str) -> None:
        super().__init__(f"network {network} not found")


class NotConnected(NetworkError):
    """The container is not in the network. dockerd answers this with 500, which clients have learnt."""

    def __init__(self, container: str, network: str) -> None:
        super().__init__(f"container {container} is not connected to network {network}")


class NetworkNotReady(NetworkError, Unavailable):
    """A cluster network has not reached this node, or the node is in no cluster."""


class NetworkUnfit(NetworkError, Conflict):
    """A cluster network can't be on this node, because of the node's links or its kernel."""


class NamespaceTaken(NetworkError, Conflict):
    """Another shoald keeps the network of this network namespace."""

    def __init__(self) -> None:
        super().__init__(
            "another shoald runs in this network namespace, and two would undo each other's networks: "
            "stop it, or start this one in a namespace of its own"
        )


class NetworkInUse(NetworkError, Conflict):
    """The network, its name or its subnet is in use."""


class PredefinedNetwork(NetworkError, Forbidden):
    """The network belongs to the engine."""


class InvalidNetwork(NetworkError, InvalidArgument):
    """The network or the sandbox can't be meant as written."""


class PoolOverlap(NetworkError, Forbidden):
    """The subnet is another network's (403, as dockerd answers)."""


class PoolsExhausted(NetworkError, Unavailable):
    """No default subnet is left."""


class ActiveEndpoints(NetworkError, Forbidden):
    """Containers are in the network (403, as dockerd answers)."""


class AddressUnavailable(NetworkError, Conflict):
    """No free address is left, or the wanted one is taken."""


class PortUnavailable(NetworkError, Conflict):
    """A host port is taken."""
