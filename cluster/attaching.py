"""What nodes and managers say to each other about containers of no service in attachable networks."""

import msgspec

from cluster.dataplane import NetworkRecord


class AttachRequest(msgspec.Struct, frozen=True):
    """POST /attachments/{node_id}: a place for a container. `network` is an id or a name."""

    network: str
    container_id: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    address: str = ""  # the wanted one


class DetachRequest(msgspec.Struct, frozen=True):
    """POST /attachments/{node_id}/detach: give a container's places back, or the one in `network_id`."""

    container_id: str
    network_id: str = ""


class FindRequest(msgspec.Struct, frozen=True):
    """POST /attachments/{node_id}/find: may a container be in this network?"""

    network: str


class Held(msgspec.Struct, frozen=True):
    """A place that a running container has, with its address ("a.b.c.d/prefix")."""

    container_id: str
    network_id: str
    address: str
    name: str = ""
    aliases: tuple[str, ...] = ()


class KeepRequest(msgspec.Struct, frozen=True):
    """POST /attachments/{node_id}/keep: the places (container id, network id) of the node's containers.

    All its others are given back. Managers that went back to an older state may know nothing of a place, or
    another address of it: `held` says who is where, so that nobody else is given the address.
    """

    places: tuple[tuple[str, str], ...] = ()
    held: tuple[Held, ...] = ()


class Kept(msgspec.Struct, frozen=True):
    """The answer to KeepRequest: the places (container id, network id) whose addresses others have by now."""

    lost: tuple[tuple[str, str], ...] = ()


class Attached(msgspec.Struct, frozen=True):
    """The answer: the network's id, and the address as "a.b.c.d/prefix" (empty for FindRequest). With
    `network` the node gives the address itself."""

    network_id: str
    address: str = ""
    network: NetworkRecord | None = None
