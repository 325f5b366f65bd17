"""What a manager and an agent say to each other: msgpack frames on one WebSocket over mutual TLS.

The agent opens `/session` on a manager's port 2377. A follower answers `SessionRedirect`. Each direction is
a sequence of tagged structs. Assignments carry a rising `sequence`; the agent answers `Applied` once the
network part is in its kernel, which is what lets the leader signal a task only after every node has taken
it out of its balancer.
"""

from typing import Any, Generic, TypeVar, get_args

import msgspec

from cluster.codec import Codec
from cluster.dataplane import DataplaneChanges
from cluster.objects import Config, NodeDescription, Secret, Task, TaskStatus

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t"):
    """Base of all frames."""


class ManagerAddress(msgspec.Struct, frozen=True):
    """A manager that an agent may connect to; "ip:port"."""

    node_id: str
    address: str


# --- agent → manager ----------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello"):
    """Opens a session. The node's identity is its certificate's."""

    description: NodeDescription
    address: str = ""  # advertised address; empty: the connection's source
    data_path_address: str = ""
    protocol: int = 1
    trust_root: str = ""  # the root certificates that the node trusts (PEM); empty: an older version


class Heartbeat(Message, frozen=True, tag="heartbeat"):
    """Says that the agent lives; due every period that the Welcome names."""


class TaskStatusUpdate(msgspec.Struct, frozen=True):
    """One task's new status."""

    task_id: str
    status: TaskStatus


class StatusReport(Message, frozen=True, tag="status"):
    """A batch of task statuses, answered by StatusAck once committed."""

    number: int
    updates: tuple[TaskStatusUpdate, ...]


class DescriptionChanged(Message, frozen=True, tag="description"):
    """The node's description changed (labels, resources)."""

    description: NodeDescription


class Applied(Message, frozen=True, tag="applied"):
    """All assignments up to `sequence` are in force, in the kernel too."""

    sequence: int


class LogChunk(Message, frozen=True, tag="log_chunk"):
    """A piece of the logs that were asked for. `stream`: 1 stdout, 2 stderr. `timestamp` in ns.

    `attributes` are those of the container's log options, when details were asked for.
    """

    request: int
    task_id: str
    timestamp: int
    stream: int
    data: bytes
    attributes: dict[str, str] = {}


class LogEnd(Message, frozen=True, tag="log_end"):
    """No more logs for this request; `error` says why when it is not simply the end."""

    request: int
    error: str = ""


# --- manager → agent ----------------------------------------------------------------------------------


class Welcome(Message, frozen=True, tag="welcome"):
    """The session is open; heartbeat period in nanoseconds."""

    session_id: str
    heartbeat_period: int
    managers: tuple[ManagerAddress, ...] = ()


class SessionRedirect(Message, frozen=True, tag="redirect"):
    """This manager does not lead; try `leader` (empty: none known, try again later)."""

    leader: str = ""
    managers: tuple[ManagerAddress, ...] = ()


class ManagersChanged(Message, frozen=True, tag="managers"):
    """The managers to fall back to."""

    managers: tuple[ManagerAddress, ...]


class RoleChanged(Message, frozen=True, tag="role"):
    """The node should renew its certificate: its role changed (promotion, demotion) or it expires soon."""

    role: str


class Assignments(Message, frozen=True, tag="assignments"):
    """What the node should run and know. `full` replaces everything; otherwise it is a difference.

    Tasks, secrets and configs come only where a task of this node needs them.
    """

    sequence: int
    full: bool = False
    tasks: tuple[Task, ...] = ()
    removed_tasks: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    removed_secrets: tuple[str, ...] = ()
    configs: tuple[Config, ...] = ()
    removed_configs: tuple[str, ...] = ()
    dataplane: DataplaneChanges = DataplaneChanges()


class HeartbeatAck(Message, frozen=True, tag="heartbeat_ack"):
    """The manager still leads: answers each heartbeat, so that an agent notices a silent leader.

    `period`: the heartbeat period from now on, in ns; 0 from an older version, which never changes it.
    """

    period: int = 0


class StatusAck(Message, frozen=True, tag="status_ack"):
    """The statuses of report `number` are committed."""

    number: int


class LogRequest(Message, frozen=True, tag="log_request"):
    """Send logs of these tasks. `since` and `until` in ns, `tail` lines (-1: all)."""

    request: int
    task_ids: tuple[str, ...]
    follow: bool = False
    since: int = 0
    until: int = 0
    tail: int = -1
    stdout: bool = True
    stderr: bool = True
    details: bool = False


class LogCancel(Message, frozen=True, tag="log_cancel"):
    """The reader went away."""

    request: int


class Removed(Message, frozen=True, tag="removed"):
    """The node was removed from the cluster: it leaves and forgets its certificate."""

    message: str = ""


AgentMessage = Hello | Heartbeat | StatusReport | DescriptionChanged | Applied | LogChunk | LogEnd
ManagerMessage = (
    Welcome
    | SessionRedirect
    | ManagersChanged
    | RoleChanged
    | Assignments
    | HeartbeatAck
    | StatusAck
    | LogRequest
    | LogCancel
    | Removed
)


class UnknownMessage(Exception):
    """A message of a kind that this version does not have, from a peer of a newer one.

    It is to be passed over: what a peer must not pass over raises `Hello.protocol` (docs/upgrades.md).
    """


class _Tag(msgspec.Struct):
    t: str


class MessageCodec(Generic[T]):
    """One direction's frames, with what a newer peer has put into their objects (cluster.codec)."""

    def __init__(self, union: Any) -> None:
        self._codec: Codec[T] = Codec(union)
        self._tag = msgspec.msgpack.Decoder(_Tag)
        self._kinds = {kind.__struct_config__.tag for kind in get_args(union)}

    def encode(self, message: T) -> bytes:
        """The message as one frame."""
        return self._codec.encode(message)

    def decode(self, frame: bytes) -> T:
        """The message in a frame. Raises UnknownMessage; MsgspecError or ValueError when it is none."""
        try:
            return self._codec.decode(frame)
        except msgspec.ValidationError:
            kind = self._tag.decode(frame).t
            if kind in self._kinds:
                raise
            raise UnknownMessage(kind) from None


def agent_messages() -> MessageCodec[AgentMessage]:
    """What agents send."""
    return MessageCodec(AgentMessage)


def manager_messages() -> MessageCodec[ManagerMessage]:
    """What managers send to agents."""
    return MessageCodec(ManagerMessage)
