"""The kinds of networks that a node knows, by the names that users write: one interface, one registry."""

from collections.abc import Mapping

from cluster.errors import Forbidden, ShoalError
from netplane.drivers.bridge import Bridges
from netplane.drivers.children import IpvlanNetworks, MacvlanNetworks
from netplane.drivers.driver import Driver
from netplane.drivers.plain import OverlayNetworks, Plain

DRIVERS: Mapping[str, Driver] = {
    "bridge": Bridges(),
    "host": Plain(),
    "ipvlan": IpvlanNetworks(),
    "macvlan": MacvlanNetworks(),
    "null": Plain(),
    "overlay": OverlayNetworks(),
}
"""Every driver. `null` is Docker's name for no network."""


class PluginNotFound(ShoalError):
    """There is no such network driver (404)."""

    status = 404

    def __init__(self, driver: str) -> None:
        super().__init__(f'error looking up network plugin {driver}: plugin "{driver}" not found')


def chosen(name: str) -> str:
    """The driver of a network that a user makes on this node, "" being the default. Raises PluginNotFound,
    Forbidden for those of which there is one network only."""
    driver = name or "bridge"
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver not in DRIVERS:
        raise PluginNotFound(driver)
    return driver
