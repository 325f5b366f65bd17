"""What a kind of network must do on a node."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cluster.seams import Random
from cluster.spec import NetworkSpec
from netplane.model import LocalNetwork, Segment


@dataclass(frozen=True)
class Draft:
    """A network that is to be made. `others` are those of this node already; `subnet` fixes the predefined
    network's IPv4 addresses ("a.b.c.d/prefix")."""

    id: str
    spec: NetworkSpec
    driver: str
    created_at: int
    rng: Random
    others: Collection[LocalNetwork] = field(default=())
    predefined: bool = False
    subnet: str = ""


class Driver(Protocol):
    """One object serves all networks of its kind. It keeps nothing: what is, the kernel and the list of
    networks tell. Its methods block, and raise NetworkError or InvalidArgument with words for the user.

    Sandboxes are plugged into the segment that `open` gives by netplane.ends, which knows two kinds of links.
    """

    def plan(self, draft: Draft) -> LocalNetwork:
        """Check what is asked and choose what is left open. Makes nothing."""

    def open(self, network: LocalNetwork) -> Segment | None:
        """Make the network's devices, or find them as an earlier run left them, and bring them in line.

        None: sandboxes are not plugged into such networks. When it fails, the caller closes the network.
        """

    def check(self, segment: Segment) -> None:
        """Find out whether sandboxes can be plugged into a new network, and leave no trace."""

    def close(self, network: LocalNetwork, others: Collection[LocalNetwork]) -> None:
        """Remove what `open` made, unless `others` need it too. Nothing there is no error."""

    def sweep(self, known: Collection[LocalNetwork]) -> None:
        """Remove what an earlier run left of networks that are not known: it died in the middle."""

    def describe(self, network: LocalNetwork) -> Mapping[str, str]:
        """The options as `docker network inspect` shows them."""
