"""What `docker logs --details` shows, from a container's log options."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.template import TemplateError
from worker.logs.attributes import attributes, in_a_line, tag
from worker.runtime.model import ContainerConfig, LogConfig


def config(**options: str) -> ContainerConfig:
    return ContainerConfig(
        id="ab" * 32,
        args=("run", "it"),
        layers=(Path("/l"),),
        name="web.1.xyz",
        image_id="sha256:" + "cd" * 32,
        image_name="nginx:1",
        labels={"tier": "front", "team": "blue", "other": "x"},
        env=("REGION=eu", "RELEASE=7,a", "HOME=/root"),
        log=LogConfig(options={key.replace("_", "-"): value for key, value in options.items()}),
    )


def test_none_unless_asked_for() -> None:
    assert attributes(config()) == {}
    assert tag(config()) == "ab" * 6


def test_labels_variables_and_tag() -> None:
    found = attributes(
        config(labels="tier,none", env="REGION", env_regex="^REL", tag="{{.Name}}/{{.ImageName}}")
    )
    assert found == {"tier": "front", "REGION": "eu", "RELEASE": "7,a", "tag": "web.1.xyz/nginx:1"}
    assert in_a_line(found) == "REGION=eu,RELEASE=7%2Ca,tag=web.1.xyz%2Fnginx%3A1,tier=front"
    assert attributes(config(labels_regex="^te")) == {"team": "blue"}
    assert attributes(config(env_regex="(R+)+$")) == {}
    slow = replace(config(labels_regex="(a|a)+$"), labels={"a" * 60 + "b": ""})
    assert attributes(slow) == {}  # a matcher that goes back would take years
    layout = (
        '{{upper .Name}}|{{index .ContainerLabels "tier"}}|{{truncate .FullID 3}}|{{.ContainerLabels.none}}'
    )
    assert tag(config(tag=layout)) == "WEB.1.XYZ|front|aba|<no value>"
    assert tag(config(tag='{{index (split .ImageName ":") 1}}')) == "1"


def test_a_bad_tag() -> None:
    with pytest.raises(TemplateError):
        tag(config(tag="{{.Nope}}"))
