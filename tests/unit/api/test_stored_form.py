"""A service that is read and written back is the same service: nothing of it may look changed."""

import json
from typing import Any

import msgspec
import pytest

from cluster.defaults import stored_service, with_defaults
from cluster.engine_json import spec_json
from cluster.spec import ServiceSpec

MINIMAL: dict[str, Any] = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}
VERBOSE: dict[str, Any] = {
    "Name": "web",
    "Labels": {},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "busybox",
            "Labels": {},
            "Env": [],
            "Mounts": [],
            "DNSConfig": {},
            "Isolation": "default",
            "Privileges": {"NoNewPrivileges": False},
            "Secrets": None,
        },
        "Resources": {"Limits": {}, "Reservations": {}},
        "RestartPolicy": {},
        "Placement": {"Platforms": []},
        "Networks": [],
        "ForceUpdate": 0,
        "Runtime": "container",
    },
    "Mode": {"Replicated": {"Replicas": 1}},
}


FULL: dict[str, Any] = {
    "Name": "web",
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "busybox",
            "Privileges": {"SELinuxContext": {"Disable": True}},
            "Secrets": [{"SecretID": "s", "SecretName": "s", "File": {"Name": "s"}}],
            "Configs": [{"ConfigID": "c", "ConfigName": "c", "File": {"Name": "c", "Mode": 292}}],
            "Ulimits": [{"Name": "nofile", "Soft": 5}],
            "Mounts": [{"Type": "volume", "Target": "/data"}],
        },
        "RestartPolicy": {"Delay": 1_000_000_000},
        "Placement": {"Preferences": [{"Spread": {}}], "MaxReplicas": 2},
        "Resources": {"Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu"}}]}},
    },
    "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishMode": "host"}]},
}


def decoded(document: Any) -> ServiceSpec:
    return stored_service(msgspec.json.decode(json.dumps(document), type=ServiceSpec))


def test_empty_parts_say_nothing() -> None:
    assert decoded(VERBOSE).task_template == decoded(MINIMAL).task_template


@pytest.mark.parametrize("document", [MINIMAL, VERBOSE, FULL])
def test_reading_and_writing_back_changes_nothing(document: dict[str, Any]) -> None:
    stored = decoded(document)
    assert decoded(spec_json(stored)) == stored


def test_what_was_said_is_kept() -> None:
    document = {
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox", "StopGracePeriod": 0, "Init": False, "Env": ["A=1"]},
            "RestartPolicy": {"Condition": "none", "Delay": 0},
        },
    }
    template = decoded(document).task_template
    assert template.container_spec is not None
    assert template.restart_policy is not None
    assert (template.container_spec.stop_grace_period, template.container_spec.init) == (0, False)
    assert (template.restart_policy.condition, template.restart_policy.delay) == ("none", 0)
    assert with_defaults(decoded(document)).name == "web"
