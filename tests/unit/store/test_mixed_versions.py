"""Two versions of Shoal over one state: what the newer one has added goes through the older one unharmed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster import codec
from cluster.codec import Codec, carried, type_info
from cluster.engine_json import service_json, task_json
from cluster.messages import (
    AgentMessage,
    Assignments,
    Heartbeat,
    ManagerMessage,
    Message,
    MessageCodec,
    UnknownMessage,
    agent_messages,
    manager_messages,
)
from cluster.objects import (
    Cluster,
    Config,
    ContainerStatus,
    Endpoint,
    JoinTokens,
    Network,
    NetworkAttachment,
    Node,
    NodeDescription,
    RootCA,
    Secret,
    Service,
    Subnet,
    Task,
    TaskStatus,
    VirtualIP,
)
from cluster.seams import SystemClock
from cluster.spec import (
    ClusterSpec,
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    DriverConfig,
    EndpointSpec,
    GenericResource,
    Mount,
    NamedResource,
    NetworkAttachmentConfig,
    NetworkSpec,
    NodeSpec,
    PortConfig,
    RaftConfig,
    ReplicatedMode,
    Resources,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from cluster.spelling import spelled
from cluster.states import TaskState
from manager.store import Store
from manager.store.entry import (
    SCHEMA,
    Action,
    Change,
    Entry,
    UnknownSchema,
    decode_object,
    encode,
    encode_object,
)
from manager.store.store import Outcome
from manager.store.tables import KINDS
from manager.store.transaction import Transaction, applied
from manager.store.view import View

_CONTAINER = ContainerSpec(
    image="nginx",
    env=["A=b"],
    labels={"a": "b"},
    mounts=[Mount(type="volume", source="data", target="/data")],
    configs=[ConfigReference(config_id="c1", config_name="conf")],
)
_TASK_SPEC = TaskSpec(
    container_spec=_CONTAINER,
    networks=[NetworkAttachmentConfig(target="n1", aliases=["web"])],
    log_driver=DriverConfig(name="json-file", options={"max-size": "1m"}),
)
_SERVICE_SPEC = ServiceSpec(
    name="web",
    task_template=_TASK_SPEC,
    mode=ServiceMode(replicated=ReplicatedMode(replicas=3)),
    endpoint_spec=EndpointSpec(ports=[PortConfig(target_port=80, published_port=8080)]),
)
_ENDPOINT = Endpoint(
    spec=EndpointSpec(mode="vip"),
    ports=(PortConfig(target_port=80),),
    virtual_ips=(VirtualIP(network_id="n1", address="10.0.0.2/24"),),
)
SAMPLES = [
    Task(
        id="t1",
        service_id="s1",
        slot=1,
        spec=_TASK_SPEC,
        status=TaskStatus(state=TaskState.RUNNING, container=ContainerStatus(container_id="c", pid=7)),
        networks=(NetworkAttachment(network_id="n1", addresses=("10.0.0.3/24",)),),
        endpoint=_ENDPOINT,
        generic_resources=(GenericResource(named_resource_spec=NamedResource(kind="gpu", value="0")),),
    ),
    Service(id="s1", spec=_SERVICE_SPEC, previous_spec=_SERVICE_SPEC, endpoint=_ENDPOINT),
    Node(
        id="n1",
        spec=NodeSpec(labels={"zone": "a"}),
        description=NodeDescription(hostname="h", resources=Resources(nano_cpus=10**9)),
        attachments={"net": "10.0.0.9/24"},
    ),
    Network(id="n1", spec=NetworkSpec(name="net"), subnets=(Subnet(subnet="10.0.0.0/24"),)),
    Secret(id="x1", spec=SecretSpec(name="s", data="YQ==")),
    Config(id="c1", spec=ConfigSpec(name="c", data="YQ==")),
    Cluster(
        id="k1",
        spec=ClusterSpec(raft=RaftConfig(snapshot_interval=5)),
        root_ca=RootCA(certificate=b"pem", join_tokens=JoinTokens(worker="w")),
    ),
]
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
_additions = st.dictionaries(
    st.text(min_size=1, max_size=6).map(lambda name: "new " + name), _values, max_size=2
)


def grown(draw: Any, value: Any, type_: Any) -> Any:
    """The plain value with fields of a newer version's in any of its structs."""
    if isinstance(type_, msgspec.inspect.UnionType):
        kind = dict if isinstance(value, dict) else list
        fits = {
            dict: (msgspec.inspect.StructType, msgspec.inspect.DictType),
            list: (msgspec.inspect.ListType, msgspec.inspect.VarTupleType),
        }[kind]
        type_ = next((each for each in type_.types if isinstance(each, fits)), None)
    if isinstance(type_, msgspec.inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in type_.fields}
        return {key: grown(draw, item, fields[key]) for key, item in value.items()} | draw(_additions)
    if isinstance(type_, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and isinstance(value, list):
        return [grown(draw, item, type_.item_type) for item in value]
    return value


def plain(data: bytes) -> Any:
    return msgspec.msgpack.decode(data)


@given(st.data(), st.sampled_from(SAMPLES))
def test_decoding_and_encoding_loses_nothing(data: st.DataObject, sample: Any) -> None:
    newer = grown(data.draw, plain(encode_object(sample)), type_info(type(sample)))
    here = decode_object(sample.kind, msgspec.msgpack.encode(newer))
    assert plain(encode_object(here)) == newer
    assert decode_object(sample.kind, encode_object(here)) == here
    touched = replace(here, version=here.version + 1)
    assert plain(encode_object(touched)) == newer | {"version": 1}


@given(st.data(), st.sampled_from(SAMPLES))
def test_carrying_keeps_what_a_user_could_not_see(data: st.DataObject, sample: Any) -> None:
    newer = grown(data.draw, plain(encode_object(sample)), type_info(type(sample)))
    assert carried(decode_object(sample.kind, msgspec.msgpack.encode(newer)), sample) == decode_object(
        sample.kind, msgspec.msgpack.encode(newer)
    )


# --- the next version, as it might be -------------------------------------------------------------------


class NewerStatus(TaskStatus, frozen=True):
    """A status that knows more."""

    progress: int = 0


class NewerContainerSpec(ContainerSpec, frozen=True):
    """A container with a field that does not exist yet."""

    gpu_profile: str = ""


class NewerTaskSpec(TaskSpec, frozen=True):
    """Its spec."""

    container_spec: NewerContainerSpec | None = None
    priority: int = 0


class NewerTask(Task, frozen=True):
    """The task of the next version."""

    spec: NewerTaskSpec = NewerTaskSpec()
    status: NewerStatus = NewerStatus()
    lease: str = ""


class NewerServiceSpec(ServiceSpec, frozen=True):
    """The spec of the next version."""

    task_template: NewerTaskSpec = NewerTaskSpec()


class NewerService(Service, frozen=True):
    """The service of the next version."""

    spec: NewerServiceSpec = NewerServiceSpec()
    previous_spec: NewerServiceSpec | None = None


NEWER_TASK = NewerTask(
    id="t1",
    service_id="s1",
    spec=NewerTaskSpec(container_spec=NewerContainerSpec(image="nginx", gpu_profile="big"), priority=7),
    status=NewerStatus(state=TaskState.RUNNING, progress=50),
    lease="l1",
)
NEWER_SERVICE = NewerService(id="s1", spec=NewerServiceSpec(name="web", task_template=NEWER_TASK.spec))
_newer_tasks = Codec[NewerTask](NewerTask)
_newer_services = Codec[NewerService](NewerService)


def created(*objects: Any) -> list[Change]:
    return [Change(Action.CREATE, obj.kind, obj.id, 0, codec.encode(obj)) for obj in objects]


def older_store(*objects: Any) -> Store:
    store = Store(SystemClock())
    store.apply(1, encode(Entry(SCHEMA, 5, "r1", tuple(created(*objects)))))
    return store


def of_newer(task: Task | None) -> NewerTask:
    assert task is not None
    return _newer_tasks.decode(encode_object(task))


def test_a_write_for_another_reason_keeps_the_newer_fields() -> None:
    store = older_store(NEWER_TASK)
    transaction = Transaction(store.view())
    task = store.view().get(Task, "t1")
    assert task is not None
    status = replace(task.status, state=TaskState.SHUTDOWN, message="stopped")
    transaction.update(replace(task, status=status, desired_state=TaskState.SHUTDOWN))
    store.apply(2, encode(Entry(SCHEMA, 6, "r2", transaction.changes())))
    after = of_newer(store.view().get(Task, "t1"))
    assert after.spec == NEWER_TASK.spec
    assert (after.lease, after.status.progress, after.status.message) == ("l1", 50, "stopped")


def test_a_snapshot_of_the_older_version_has_the_newer_fields() -> None:
    chunks = list(older_store(NEWER_TASK, NEWER_SERVICE).snapshot())
    assert b"gpu" in b"".join(chunks).lower()
    assert codec.UNKNOWN_FIELDS.encode() not in b"".join(chunks)
    restored = Store(SystemClock())
    restored.restore(1, iter(chunks))
    after = of_newer(restored.view().get(Task, "t1"))
    assert replace(after, version=0, created_version=0, created_at=0, updated_at=0) == NEWER_TASK
    assert list(restored.snapshot()) == chunks


def test_an_agent_of_the_newer_version_gets_them_from_an_older_manager() -> None:
    task = older_store(NEWER_TASK).view().get(Task, "t1")
    assert task is not None
    frame = manager_messages().encode(Assignments(sequence=1, tasks=(task,)))

    class NewerAssignments(Message, frozen=True, tag="assignments"):
        sequence: int
        tasks: tuple[NewerTask, ...] = ()

    seen = msgspec.msgpack.decode(frame, type=NewerAssignments).tasks[0]
    assert (seen.lease, seen.spec.priority) == ("l1", 7)
    kept = manager_messages().decode(frame)  # and an older agent keeps them on its disk
    assert isinstance(kept, Assignments)
    assert kept.tasks == (task,)


def test_both_versions_agree_whether_a_spec_changed() -> None:
    """The newer one changes only what the older one does not know: the managers must not come apart."""
    store = older_store(NEWER_SERVICE)
    changed = replace(
        NEWER_SERVICE, version=1, spec_version=1, spec=NewerServiceSpec(name="web", labels={"a": "b"})
    )
    for spec_changed, expected in ((True, 2), (False, 1)):
        change = Change(Action.UPDATE, "service", "s1", 1, codec.encode(changed), spec_changed)
        view, _ = applied(store.view(), 2, 7, [change])
        service = view.get(Service, "s1")
        assert service is not None
        assert service.spec_version == expected


def test_the_writer_says_whether_a_spec_changed() -> None:
    store = older_store(NEWER_SERVICE)
    service = store.view().get(Service, "s1")
    assert service is not None
    for spec, expected in ((replace(service.spec, labels={"a": "b"}), True), (service.spec, False)):
        transaction = Transaction(store.view())
        transaction.update(replace(service, spec=spec))
        assert [change.spec_changed for change in transaction.changes()] == [expected]


def test_an_entry_without_the_writers_word_is_compared() -> None:
    store = older_store(NEWER_SERVICE)
    service = store.view().get(Service, "s1")
    assert service is not None
    changed = replace(service, spec=replace(service.spec, labels={"a": "b"}))
    short = [Action.UPDATE.value, "service", "s1", 1, encode_object(changed)]  # as it was before
    entry = msgspec.msgpack.encode({"v": 1, "t": 9, "r": "r2", "c": [short]})
    assert store.apply(2, entry) == Outcome(2)
    after = store.view().get(Service, "s1")
    assert after is not None
    assert after.spec_version == 2


def test_the_api_does_not_show_or_take_what_is_carried() -> None:
    view = older_store(NEWER_TASK, NEWER_SERVICE).view()
    task, service = view.get(Task, "t1"), view.get(Service, "s1")
    assert task is not None
    assert service is not None
    shown = msgspec.json.encode([task_json(task, lambda _: None), service_json(service, lambda _: None)])
    assert codec.UNKNOWN_FIELDS.encode() not in shown
    assert b"gpu" not in shown.lower()
    assert spelled({codec.UNKNOWN_FIELDS: "AAAA", "name": "x"}, ServiceSpec) == {"Name": "x"}


def test_a_peer_can_not_set_what_is_carried() -> None:
    forged = plain(encode_object(SAMPLES[0])) | {
        codec.UNKNOWN_FIELDS: msgspec.msgpack.encode({"service_id": "another", "node_id": "n9"})
    }
    task = decode_object("task", msgspec.msgpack.encode(forged))
    assert task == SAMPLES[0]
    assert plain(encode_object(task)) == plain(encode_object(SAMPLES[0]))


# --- what can't be carried ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        [0, "volume", "v1", 0, b"\x80"],
        [9, "task", "t1", 0, b"\x80"],
        [0, "task", "t9", 0, msgspec.msgpack.encode({"id": "t9", "desired_state": 4711})],
        [0, "task", "t9", 0, msgspec.msgpack.encode({"id": "t9", "slot": "first"})],
    ],
    ids=["kind", "action", "enum value", "type"],
)
def test_what_this_version_can_not_hold_stops_it(change: list[Any]) -> None:
    store = older_store(NEWER_TASK)
    before = store.view()
    entry = msgspec.msgpack.encode({"v": 1, "t": 9, "r": "r2", "c": [change]})
    with pytest.raises(UnknownSchema, match="upgrade this manager"):
        store.apply(2, entry)
    assert store.view() is before


def test_a_snapshot_with_an_unknown_kind_is_refused() -> None:
    chunks = list(older_store(NEWER_TASK).snapshot())
    body = msgspec.msgpack.encode(("volume", [{"id": "v1"}]))
    chunks.insert(1, len(body).to_bytes(4) + body)
    store = Store(SystemClock())
    with pytest.raises(UnknownSchema, match="volume"):
        store.restore(1, iter(chunks))
    assert store.view().index == View.empty().index


def test_a_snapshot_with_a_value_that_can_not_be_held_asks_for_an_upgrade_as_an_entry_does() -> None:
    chunks = list(older_store(NEWER_TASK).snapshot())
    body = msgspec.msgpack.encode(("task", [{"id": "t9", "desired_state": 4711}]))
    chunks.insert(1, len(body).to_bytes(4) + body)
    with pytest.raises(UnknownSchema, match="upgrade this manager"):
        Store(SystemClock()).restore(1, iter(chunks))


def test_every_kind_of_object_is_sampled() -> None:
    assert {type(sample) for sample in SAMPLES} == set(KINDS.values())


@pytest.mark.parametrize("messages", [agent_messages(), manager_messages()], ids=["agent", "manager"])
def test_a_message_of_an_unknown_kind_is_told_from_nonsense(messages: MessageCodec[Any]) -> None:
    with pytest.raises(UnknownMessage, match="prefetch"):
        messages.decode(msgspec.msgpack.encode({"t": "prefetch", "image": "nginx"}))
    for nonsense in (b"", b"\xc1", msgspec.msgpack.encode([1]), msgspec.msgpack.encode({"t": 1})):
        with pytest.raises(msgspec.MsgspecError):
            messages.decode(nonsense)


def test_a_known_message_that_is_malformed_is_no_unknown_one() -> None:
    union: Any = AgentMessage | ManagerMessage
    with pytest.raises(msgspec.ValidationError):
        MessageCodec[Any](union).decode(msgspec.msgpack.encode({"t": "applied", "sequence": "x"}))
    assert (
        MessageCodec[Any](union).decode(msgspec.msgpack.encode({"t": "heartbeat", "load": 3})) == Heartbeat()
    )
