"""Finding containers by what users call them."""

from cluster.errors import InvalidArgument, NotFound
from worker.runtime.model import ContainerConfig, ContainerState
from worker.runtime.runtime import Runtime

Found = tuple[ContainerConfig, ContainerState]


def find(runtime: Runtime, name: str) -> Found:
    """A container by id, name, or a unique prefix of its id. NotFound, InvalidArgument for several."""
    containers = runtime.list()
    for config, state in containers:
        if name in (config.id, config.name) or name == f"/{config.name}":
            return config, state
    matching = [found for found in containers if found[0].id.startswith(name)]
    if len(matching) > 1:
        raise InvalidArgument(f"Multiple IDs found with provided prefix: {name}")
    if not matching or not name:
        raise NotFound(f"No such container: {name}")
    return matching[0]
