"""Images pinned to the digest that the registry has now, so that all nodes run the same."""

from shoal.cli.client import Engine, EngineError, Json
from shoal.cli.output import say


def pin(engine: Engine, spec: Json, auth: str = "") -> bool:
    """Pin the image of a service's specification, and note the platforms that it is for.

    `auth` is an X-Registry-Auth header. Where the registry can't tell, the image stays as it is, with a
    remark. True when the image is pinned now.
    """
    container = spec["TaskTemplate"]["ContainerSpec"]
    image = container["Image"]
    if "@" in image:
        return True
    headers = {"X-Registry-Auth": auth} if auth else {}
    try:
        found = engine.request("GET", f"/distribution/{image}/json", headers=headers)
    except EngineError as error:
        say(f"warning: image {image} could not be pinned to a digest, nodes may run different ones: {error}")
        return False
    container["Image"] = f"{image}@{found['Descriptor']['digest']}"
    platforms = [
        {"Architecture": p.get("architecture", ""), "OS": p.get("os", "")}
        for p in found.get("Platforms") or ()
    ]
    if platforms:
        placement = spec["TaskTemplate"].get("Placement") or {}
        spec["TaskTemplate"]["Placement"] = placement | {"Platforms": platforms}
    return True
