"""The cluster's networks that standalone containers may be in: those made with `--attachable`.

Their addresses are the managers' to give. The daemon passes in who asks them; outside of a cluster there is
none.
"""

from typing import Protocol

from netplane.errors import NetworkNotFound
from worker.endpoints import EndpointSettings


class Attachable(Protocol):
    """Who gets containers places in the cluster's networks."""

    def knows(self, network_id: str) -> bool:
        """True for a network of the cluster's that a container was found to be allowed in."""

    async def find(self, name: str) -> str:
        """The id of a network, by name or id. NotFound, Forbidden if it isn't attachable."""

    async def attach(
        self, container_id: str, network_id: str, settings: EndpointSettings
    ) -> EndpointSettings:
        """Ask for a place; the settings with the address that the managers gave. ShoalError."""

    async def detach(self, container_id: str, network_id: str = "") -> None:
        """Give a container's places back, or the one in that network. None there is no error."""


class NoCluster:
    """Outside of a cluster."""

    def knows(self, network_id: str) -> bool:
        """None is known."""
        return False

    async def find(self, name: str) -> str:
        """There is none."""
        raise NetworkNotFound(name)

    async def attach(
        self, container_id: str, network_id: str, settings: EndpointSettings
    ) -> EndpointSettings:
        """There is none."""
        raise NetworkNotFound(network_id)

    async def detach(self, container_id: str, network_id: str = "") -> None:
        """There is nothing to give back."""
