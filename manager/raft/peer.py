"""A member of the cluster's managers, as Raft's parts speak of it."""

import zlib

from pysyncobj.node import Node as EngineNode


class Peer(EngineNode):  # type: ignore[misc]
    """A member as pysyncobj knows it; equal by id."""

    def __init__(self, node_id: str, address: str) -> None:
        super().__init__(node_id)
        self.address = address
        self._hash = zlib.crc32(node_id.encode())

    def __hash__(self) -> int:
        """The same in every process, so that a simulation iterates over sets alike each time."""
        return self._hash
