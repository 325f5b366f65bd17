"""What a service's spec names is looked up: by id or by name, and what there is not is refused."""

from typing import Any

import pytest

from cluster.objects import Config, Network, Secret
from cluster.spec import ConfigSpec, NetworkSpec, SecretSpec
from tests.unit.api.manager import Api, service_body

HOST = Network(id="hostnetworkid", spec=NetworkSpec(name="host"), driver="host", predefined=True)


async def create(api: Api, container: dict[str, Any], **fields: Any) -> tuple[int, Any]:
    template = {"ContainerSpec": {"Image": "a", **container}, **fields.pop("template", {})}
    return await api("POST", "/services/create", service_body(TaskTemplate=template, **fields))


async def test_secrets_and_configs_are_named_by_id_or_name(api: Api) -> None:
    await api.put(Secret(id="s1", spec=SecretSpec(name="key")), Config(id="c1", spec=ConfigSpec(name="conf")))
    status, _ = await create(
        api, {"Secrets": [{"SecretName": "key"}], "Configs": [{"ConfigID": "c1", "File": {"Name": "/x"}}]}
    )
    assert status == 201
    spec = (await api.ok("GET", "/services/web"))["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert (spec["Secrets"][0]["SecretID"], spec["Secrets"][0]["SecretName"]) == ("s1", "key")
    assert (spec["Configs"][0]["ConfigID"], spec["Configs"][0]["ConfigName"]) == ("c1", "conf")
    for kind, name in (("secrets", "key"), ("configs", "conf")):
        status, problem = await api("DELETE", f"/{kind}/{name}")
        assert status == 400
        assert "in use by the following service: web" in problem["message"]


async def test_all_that_is_missing_is_named(api: Api) -> None:
    status, problem = await create(
        api, {"Secrets": [{"SecretName": "a"}, {"SecretID": "b", "SecretName": "b"}]}
    )
    assert (status, problem["message"]) == (400, "secrets not found: a, b")
    status, problem = await create(api, {"Configs": [{"ConfigID": "c9"}]})
    assert (status, problem["message"]) == (400, "config not found: c9")


@pytest.mark.parametrize(
    ("container", "fields", "words"),
    [
        ({}, {"EndpointSpec": {"Ports": [{"TargetPort": 80}]}}, "can't be used with the network host"),
        ({"Sysctls": {"net.core.somaxconn": "9"}}, {}, "not allowed in host network namespace"),
    ],
)
async def test_what_the_hosts_network_can_not_have(
    api: Api, container: dict[str, Any], fields: dict[str, Any], words: str
) -> None:
    await api.put(HOST)
    status, problem = await create(api, container, template={"Networks": [{"Target": "host"}]}, **fields)
    assert status == 400
    assert words in problem["message"]


async def test_a_port_of_the_host_may_be_published_on_the_hosts_network(api: Api) -> None:
    await api.put(HOST, Network(id="othernetworkid", spec=NetworkSpec(name="other")))
    port = {"TargetPort": 80, "PublishedPort": 80, "PublishMode": "host"}
    status, _ = await create(
        api, {}, template={"Networks": [{"Target": "host"}]}, EndpointSpec={"Ports": [port]}
    )
    assert status == 201
    status, problem = await create(api, {}, template={"Networks": [{"Target": "host"}, {"Target": "other"}]})
    assert status == 400
    assert "can't be attached to other networks" in problem["message"]


@pytest.mark.parametrize("kind", ["secrets", "configs"])
async def test_templates_of_secrets_and_configs_are_read_when_they_are_made(api: Api, kind: str) -> None:
    def payload(text: str, driver: str = "golang") -> dict[str, Any]:
        return {"Name": "one", "Data": text, "Templating": {"Name": driver}}

    status, problem = await api("POST", f"/{kind}/create", payload("e3tub319"))  # {{no}}
    assert status == 400
    assert 'function "no" not defined' in problem["message"]
    status, problem = await api("POST", f"/{kind}/create", payload("eA==", "jinja"))
    assert status == 400
    assert "templating driver" in problem["message"]
    await api.ok("POST", f"/{kind}/create", payload("e3tlbnYgIkEifX0="))  # {{env "A"}}
