"""Has the parts of a node tell what happens in them, for GET /events."""

from collections.abc import Mapping

from worker.engine import Engine
from worker.volumes.store import Volume


def tell_events(engine: Engine) -> None:
    """From now on the engine's parts tell its events."""
    events = engine.events

    def network(action: str, network_id: str, attributes: Mapping[str, str]) -> None:
        events.tell("network", action, network_id, attributes)

    def volume(action: str, volume: Volume) -> None:
        events.tell("volume", action, volume.name, {"driver": volume.driver})

    def image(action: str, image_id: str, attributes: Mapping[str, str]) -> None:
        events.tell("image", action, image_id, attributes)

    engine.runtime.observe(events.container_changed, events.container)
    engine.network.notice = network
    engine.volumes.notice = volume
    engine.images.notice = image
