"""A large cluster's state, of the objects that a cluster really holds."""

import base64
import os
from collections.abc import Callable, Iterator

from cluster.objects import Config, NetworkAttachment, Secret, Service, StoreObject, Task, TaskStatus
from cluster.spec import (
    ConfigSpec,
    ContainerSpec,
    NetworkAttachmentConfig,
    Placement,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from cluster.states import TaskState

TASKS_OF_A_SERVICE = 20
NODES = 50
SECRET_BYTES = 20_000


def text(size: int) -> str:
    """Base64 text of that many characters, which does not compress."""
    return base64.b64encode(os.urandom(size * 3 // 4 + 1)).decode()[:size]


def objects(files: int, file_bytes: int, tasks: int, new_id: Callable[[], str]) -> Iterator[StoreObject]:
    """Configs of `file_bytes`, as many smaller secrets, and services with so many tasks among them."""
    for _ in range(files):
        yield Config(id=new_id(), spec=ConfigSpec(name=f"config-{new_id()}", data=text(file_bytes)))
        size = min(file_bytes, SECRET_BYTES)
        yield Secret(id=new_id(), spec=SecretSpec(name=f"secret-{new_id()}", data=text(size)))
    network = new_id()
    nodes = [new_id() for _ in range(NODES)]
    for number in range(0, tasks, TASKS_OF_A_SERVICE):
        service = _service(f"service-{new_id()}", new_id(), network)
        yield service
        for slot in range(1, min(TASKS_OF_A_SERVICE, tasks - number) + 1):
            yield _task(service, slot, new_id(), nodes[(number + slot) % NODES], network)


def _service(name: str, id: str, network: str) -> Service:
    container = ContainerSpec(
        image="registry.example.org/team/application:1.2.3@sha256:" + "0123456789abcdef" * 4,
        labels={"com.example.team": "storefront", "com.example.stage": "production"},
        args=["serve", "--port", "8080", "--log-level", "info"],
        env=["DATABASE_HOST=database", "DATABASE_PORT=5432", "CACHE_HOST=cache", f"NAME={name}"],
        stop_grace_period=10_000_000_000,
    )
    template = TaskSpec(
        container_spec=container,
        placement=Placement(constraints=["node.role==worker", "node.labels.disk==ssd"]),
        networks=[NetworkAttachmentConfig(target=network)],
    )
    spec = ServiceSpec(name=name, labels={"com.example.owner": "someone"}, task_template=template)
    return Service(id=id, spec=spec)


def _task(service: Service, slot: int, id: str, node: str, network: str) -> Task:
    return Task(
        id=id,
        service_id=service.id,
        service_name=service.spec.name,
        service_labels=service.spec.labels or {},
        slot=slot,
        node_id=node,
        spec=service.spec.task_template,
        status=TaskStatus(state=TaskState.RUNNING, message="started"),
        desired_state=TaskState.RUNNING,
        networks=(NetworkAttachment(network_id=network, addresses=(f"10.0.{slot}.7/16",)),),
    )
