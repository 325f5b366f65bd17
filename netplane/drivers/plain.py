"""Networks that no sandbox is plugged into here: `host`, `none`, and networks that only hold settings; and
overlays, whose devices follow the managers' records (netplane.overlay)."""

from collections.abc import Collection, Mapping

from cluster.errors import Forbidden
from netplane.drivers.driver import Draft
from netplane.model import LocalNetwork, Segment


class Plain:
    """No devices."""

    def plan(self, draft: Draft) -> LocalNetwork:
        """As asked."""
        return LocalNetwork(
            draft.id,
            draft.spec.name,
            draft.driver,
            draft.created_at,
            draft.spec,
            predefined=draft.predefined,
        )

    def open(self, network: LocalNetwork) -> Segment | None:
        """Nothing to make: such a network is a sandbox's mode."""
        return None

    def check(self, segment: Segment) -> None:
        """Nothing to try."""

    def close(self, network: LocalNetwork, others: Collection[LocalNetwork]) -> None:
        """Nothing to remove."""

    def sweep(self, known: Collection[LocalNetwork]) -> None:
        """Nothing to leave behind."""

    def describe(self, network: LocalNetwork) -> Mapping[str, str]:
        """As asked."""
        return dict(network.spec.options or {})


class OverlayNetworks(Plain):
    """Overlays are never this node's alone."""

    def plan(self, draft: Draft) -> LocalNetwork:
        """Refused: the managers make them."""
        raise Forbidden("networks of driver overlay are the cluster's: this node is no swarm manager")
