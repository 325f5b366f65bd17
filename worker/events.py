"""What happens on this node, for GET /events: containers, images, volumes, networks, in Docker's words."""

from collections.abc import Mapping

from cluster.event_ring import MAX_BYTES, MAX_EVENTS, EventRing, Logged
from cluster.events import event_line
from cluster.seams import SECOND, Clock
from worker.runtime.model import ContainerConfig, ContainerState, MountKind

_LOST = "events were lost: they came faster than they were read; list what you follow, and follow it again"
SCOPE = "local"


class EngineEvents(EventRing):
    """Recent events of this node."""

    def __init__(self, clock: Clock, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(clock.now(), _LOST, max_events, max_bytes)
        self._clock = clock
        self.listeners = 0
        """Streams that are open now."""

    def tell(self, kind: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Something happened to the object of this id. `attributes` may hold its `name` and its labels."""
        now = self._clock.now()
        told = dict(attributes)
        self.add(
            Logged(
                kind=kind,
                action=action,
                id=id,
                name=told.get("name", ""),
                labels=told,
                at=now,
                index=0,
                line=_line(kind, action, id, told, now),
            )
        )

    def container(self, action: str, config: ContainerConfig, extra: Mapping[str, str] | None = None) -> None:
        """Something happened to a container (`exec_create: CMD`, `kill`, …). `extra`: more attributes."""
        named = {"image": config.image_name, "name": config.name}
        self.tell("container", action, config.id, {**config.labels, **named, **(extra or {})})

    def container_changed(
        self, config: ContainerConfig, old: ContainerState | None, new: ContainerState | None
    ) -> None:
        """A container's state changed; None: there is no container."""
        for action, extra in transitions(old, new):
            if action == "start":
                self._mounts("mount", config)
            self.container(action, config, extra)
            if action == "die":
                self._mounts("unmount", config)

    def _mounts(self, action: str, config: ContainerConfig) -> None:
        for mount in config.mounts:
            if mount.kind is not MountKind.VOLUME:
                continue
            told = {"container": config.id, "driver": mount.driver or "local"}
            if action == "mount":
                told |= {
                    "destination": mount.target,
                    "propagation": mount.propagation,
                    "read/write": str(not mount.read_only).lower(),
                }
            self.tell("volume", action, mount.volume_name, told)


def transitions(old: ContainerState | None, new: ContainerState | None) -> list[tuple[str, dict[str, str]]]:
    """Docker's events for a change of a container's state, in order, each with the attributes of its own."""
    if new is None:
        return [("destroy", {})]
    if old is None:
        return [("create", {})]
    found: list[tuple[str, dict[str, str]]] = []
    if new.running and (not old.running or old.started_at != new.started_at):
        found.append(("start", {}))
    elif old.running and not new.running:
        if new.oom_killed:
            found.append(("oom", {}))
        lasted = max(0, new.finished_at - new.started_at) // SECOND
        found.append(("die", {"exitCode": str(new.exit_code), "execDuration": str(lasted)}))
    elif old.running and old.status is not new.status:
        found.append(("pause" if new.status.value == "paused" else "unpause", {}))
    if new.running and old.running and new.health.status is not old.health.status:
        found.append((f"health_status: {new.health.status.value}", {}))
    return found


def _line(kind: str, action: str, id: str, attributes: dict[str, str], at: int) -> bytes:
    """Old clients read `status`, `id` and `from` of containers and images beside the newer fields."""
    legacy: dict[str, str] = {}
    if kind in ("container", "image"):
        legacy = {"status": action, "id": id}
        if kind == "container":
            legacy["from"] = attributes.get("image", "")
    return event_line(kind, action, id, attributes, SCOPE, at, legacy)
