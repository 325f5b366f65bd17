"""Which registries hear a service's credential."""

import base64

import pytest

from cluster.objects import Task
from cluster.spec import ContainerSpec, TaskSpec
from worker.agent.task_executor import credential
from worker.images.reference import Reference


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("hub.example/app:1", True),
        ("hub.example/data", True),
        ("elsewhere.example/data", False),
        ("nginx", False),
    ],
)
def test_only_the_registry_of_its_own_image_does(image: str, shown: bool) -> None:
    auth = base64.urlsafe_b64encode(b'{"username": "u", "password": "p"}').decode()
    spec = TaskSpec(container_spec=ContainerSpec(image="hub.example/app:1"))
    found = credential(Task(id="t", spec=spec, registry_auth=auth), Reference.parse(image))
    assert (found is not None and found.username == "u") is shown
