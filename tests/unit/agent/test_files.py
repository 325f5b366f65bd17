"""Secrets and configs as files of one task: places, modes, templates."""

from base64 import b64encode

import pytest

from cluster.objects import Config, NodeDescription, Secret, Task
from cluster.spec import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    DriverConfig,
    FileTarget,
    SecretReference,
    SecretSpec,
    TaskSpec,
)
from worker.agent.container import own_environment
from worker.agent.executor import TaskRejected
from worker.agent.files import TaskFiles
from worker.agent.template import Template
from worker.runtime.model import InMemoryFile

GO = DriverConfig(name="golang")
ENV = ["HOME_OF={{.Service.Name}}", "GONE", "PLAIN=x=y"]


def stored(text: bytes) -> str:
    return b64encode(text).decode()


SECRETS = {
    "s1": Secret(id="s1", spec=SecretSpec(name="key", data=stored(b"s3cr3t"))),
    "s2": Secret(id="s2", spec=SecretSpec(name="bytes", data="_-A=")),
}
CONFIGS = {
    "c1": Config(id="c1", spec=ConfigSpec(name="plain", data=stored(b"{{.Task.Slot}}"))),
    "c2": Config(
        id="c2",
        spec=ConfigSpec(
            name="filled",
            templating=GO,
            data=stored(
                b'\xff{{.Task.Slot}} {{secret "key"}} {{config "/etc/plain"}} {{env "HOME_OF"}}|'
                b'{{env "NONE"}}|{{if eq (env "PLAIN") "x=y"}}yes{{end}}'
            ),
        ),
    ),
    "bad": Config(id="bad", spec=ConfigSpec(name="bad", templating=GO, data=stored(b'{{secret "none"}}'))),
}


def files(*configs: ConfigReference, secrets: list[SecretReference] | None = None) -> list[InMemoryFile]:
    container = ContainerSpec(image="x", env=ENV, secrets=secrets, configs=list(configs))
    task = Task(id="t", service_name="web", slot=3, spec=TaskSpec(container_spec=container))
    template = Template(task, NodeDescription(hostname="h"))
    variables = {k: v for k, v in own_environment(container, template).items() if v is not None}
    return TaskFiles(task, SECRETS, CONFIGS, variables, template).in_memory()


def test_places_owners_and_modes() -> None:
    found = files(
        ConfigReference(config_id="c1", config_name="plain"),
        ConfigReference(config_id="c1", file=FileTarget(name="/etc/plain", uid="7", gid="8", mode=0o640)),
        secrets=[
            SecretReference(secret_id="s1", secret_name="key"),
            SecretReference(secret_id="s2", file=FileTarget(name="/run/key")),
            SecretReference(secret_id="s2", file=FileTarget(name="deep/key")),
        ],
    )
    assert [file.target for file in found] == [
        "/run/secrets/key", "/run/key", "/run/secrets/deep/key", "/plain", "/etc/plain",
    ]  # fmt: skip
    assert (found[4].uid, found[4].gid, found[4].mode) == (7, 8, 0o640)
    assert (found[0].uid, found[0].mode, found[0].data) == (0, 0o444, b"s3cr3t")
    assert found[1].data == b"\xff\xe0"  # base64 for URLs
    assert found[3].data == b"{{.Task.Slot}}"  # no template unless it is said


def test_templates_are_filled_in() -> None:
    found = files(
        ConfigReference(config_id="c1", file=FileTarget(name="/etc/plain")),
        ConfigReference(config_id="c2", config_name="filled"),
        secrets=[SecretReference(secret_id="s1", secret_name="key")],
    )
    assert found[-1].data == b"\xff3 s3cr3t {{.Task.Slot}} web||yes"


def test_what_is_missing_rejects_the_task() -> None:
    with pytest.raises(TaskRejected, match="config gone is not available"):
        files(ConfigReference(config_id="c9", config_name="gone"))
    with pytest.raises(TaskRejected, match="no secret with target 'none'"):
        files(ConfigReference(config_id="bad", config_name="bad"))
