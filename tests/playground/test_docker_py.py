"""The same cluster through docker-py."""

import docker
import docker.errors
import docker.types
import pytest

from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground


def test_swarm_and_nodes(cluster: Cluster) -> None:
    client = cluster.client("host2")
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.50"
    client.swarm.reload()
    assert client.swarm.attrs["JoinTokens"]["Worker"].startswith("SWMTKN-1-")
    nodes = client.nodes.list(filters={"role": "manager"})
    assert sorted(node.attrs["Description"]["Hostname"] for node in nodes) == cluster.hosts
    node = next(node for node in nodes if node.attrs["Description"]["Hostname"] == "host3")
    spec = node.attrs["Spec"]
    assert node.update({**spec, "Labels": {"by": "docker-py"}})
    node.reload()
    assert node.attrs["Spec"]["Labels"] == {"by": "docker-py"}
    node.update({**spec, "Labels": {}})


def test_services_networks_and_tasks(cluster: Cluster) -> None:
    client = cluster.client("host2")
    network = client.networks.create("shop", driver="overlay", labels={"team": "blue"})
    service = client.services.create(
        "busybox",
        ["sleep", "infinity"],
        name="web",
        networks=["shop"],
        env=["COLOUR=blue"],
        labels={"team": "blue"},
        mode=docker.types.ServiceMode("replicated", 2),
        endpoint_spec=docker.types.EndpointSpec(ports={8090: 80}),
        stop_grace_period=200_000_000,
        update_config=docker.types.UpdateConfig(parallelism=1, monitor=100_000_000),
    )
    cluster.running("web", 2)
    assert [found.name for found in client.services.list(filters={"label": "team=blue"})] == ["web"]
    service.reload()
    assert service.attrs["Endpoint"]["Ports"][0]["PublishedPort"] == 8090
    assert service.scale(3)
    eventually("three run", lambda: states(service).count("running") == 3)
    service.reload()
    service.update(env=["COLOUR=green"])
    eventually(
        "it is updated",
        lambda: client.services.get(service.id).attrs.get("UpdateStatus", {}).get("State") == "completed",
    )
    tasks = [
        task for task in service.tasks({"desired-state": "running"}) if task["Status"]["State"] == "running"
    ]
    assert {tuple(task["Spec"]["ContainerSpec"]["Env"]) for task in tasks} == {("COLOUR=green",)}
    assert client.api.inspect_task(tasks[0]["ID"])["ServiceID"] == service.id
    network.reload()
    assert network.attrs["Labels"] == {"team": "blue"}
    assert b"".join(service.logs(stdout=True, stderr=True)) == b""
    service.remove()
    with pytest.raises(docker.errors.NotFound):
        client.services.get("web")
    eventually("the network goes", lambda: network.remove() is None)
    assert client.networks.list(names=["shop"]) == []


def states(service: "docker.models.services.Service") -> list[str]:
    """The states of its tasks that should run."""
    return [task["Status"]["State"] for task in service.tasks({"desired-state": "running"})]


def test_images_and_containers(cluster: Cluster) -> None:
    cluster.run("web", "--constraint", "node.hostname==host2", "--", "sh", "-c", "echo hello; sleep infinity")
    client = cluster.client("host2")
    assert "busybox:latest" in [tag for image in client.images.list() for tag in image.tags]
    (container,) = client.containers.list(filters={"label": "com.docker.swarm.service.name=web"})
    assert container.status == "running"
    assert eventually("it wrote", lambda: container.logs()) == b"hello\n"
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("no-such-image")


def test_secrets_and_configs(cluster: Cluster) -> None:
    client = cluster.client("host3")
    secret = client.secrets.create(name="key", data=b"x", labels={"a": "b"})
    assert client.secrets.get(secret.id).attrs["Spec"]["Labels"] == {"a": "b"}
    assert [found.name for found in client.secrets.list()] == ["key"]
    secret.remove()
    assert client.secrets.list() == []
    config = client.configs.create(name="settings", data=b"x")
    assert client.configs.get(config.id).name == "settings"
    config.remove()


def test_errors_are_its_own(cluster: Cluster) -> None:
    client = cluster.client("host1")
    with pytest.raises(docker.errors.NotFound, match="no-such"):
        client.services.get("no-such")
    with pytest.raises(docker.errors.APIError, match="already part of a swarm"):
        client.swarm.init()
