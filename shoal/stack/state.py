"""What of a stack is there, by the labels that it was made with."""

from dataclasses import dataclass

from shoal.cli.client import Engine, Json
from shoal.stack.namespace import DEPENDS_ON, Namespace
from shoal.stack.order import label


@dataclass(frozen=True)
class Present:
    """The objects of one stack as the engine lists them."""

    services: tuple[Json, ...]
    networks: tuple[Json, ...]
    secrets: tuple[Json, ...]
    configs: tuple[Json, ...]

    @classmethod
    def of(cls, engine: Engine, namespace: Namespace) -> "Present":
        """Ask the engine."""
        lists = (
            engine.get(path, filters=namespace.filter) or ()
            for path in ("/services", "/networks", "/secrets", "/configs")
        )
        services, networks, secrets, configs = (tuple(sorted(found, key=name_of)) for found in lists)
        return cls(services, networks, secrets, configs)

    @property
    def empty(self) -> bool:
        """Whether there is nothing of the stack."""
        return not (self.services or self.networks or self.secrets or self.configs)

    def depends_on(self, namespace: Namespace) -> dict[str, dict[str, str]]:
        """What each service waits for, by their own names, as the labels remember it."""
        return {
            namespace.descope(name_of(found)): label((found["Spec"].get("Labels") or {}).get(DEPENDS_ON, ""))
            for found in self.services
        }


def name_of(found: Json) -> str:
    """The name of a service, network, secret or config."""
    return str(found.get("Name") or found.get("Spec", {}).get("Name", ""))
