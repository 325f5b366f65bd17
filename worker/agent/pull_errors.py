"""What a task says when its image can't be pulled."""

from worker.images.auth import RegistryAuth
from worker.images.errors import AccessDenied, RegistryUnauthorized


def told(error: Exception, image: str, auth: RegistryAuth | None, service: str) -> str:
    """The registry's reason and, where it wants another credential, how to give the service one."""
    said = f"No such image: {image}: {error}"
    if not isinstance(error, RegistryUnauthorized | AccessDenied):
        return said
    give = f"`docker service update --with-registry-auth {service}` or `shoal service refresh-auth {service}`"
    if auth is not None:
        return f"{said}; the service's credential was refused, it may have expired: log in again, then {give}"
    return f"{said}; the service was given no credential: log in, then {give}"
