"""Names and labels of what belongs to a stack: the same as docker's, so that both commands can be mixed."""

import re

from cluster.errors import InvalidArgument

NAMESPACE = "com.docker.stack.namespace"
IMAGE = "com.docker.stack.image"
DEPENDS_ON = "shoal.stack.depends-on"
"""A service's label: `db:service_healthy,cache:service_started`, for the order of `stack rm`."""

_STACK_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?")


class Namespace:
    """A stack's name. Raises InvalidArgument when it can't begin the name of a service."""

    def __init__(self, name: str) -> None:
        if len(name) > 50 or not _STACK_NAME.fullmatch(name):
            raise InvalidArgument(
                f"invalid stack name {name!r}: at most 50 letters, digits, - _ and ., "
                "the first and the last a letter or digit"
            )
        self.name = name

    def scope(self, name: str) -> str:
        """The full name of a part."""
        return f"{self.name}_{name}"

    def descope(self, name: str) -> str:
        """The part's own name."""
        return name.removeprefix(f"{self.name}_")

    def labels(self, given: dict[str, str] | None = None) -> dict[str, str]:
        """Labels with the stack's."""
        return {**(given or {}), NAMESPACE: self.name}

    @property
    def filter(self) -> dict[str, list[str]]:
        """The filter for lists: what belongs to the stack."""
        return {"label": [f"{NAMESPACE}={self.name}"]}
