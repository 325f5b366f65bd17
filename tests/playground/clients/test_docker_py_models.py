"""docker-py's models, end to end: everything of a shop is made, changed and removed with them."""

import docker
import docker.types
import pytest

from tests.playground.clients.seen import Seen
from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

SECOND = 1_000_000_000


def test_a_shop(cluster: Cluster) -> None:
    client = cluster.client("host2")
    node = next(n for n in client.nodes.list() if n.attrs["Description"]["Hostname"] == "host3")
    plain = dict(node.attrs["Spec"])
    assert node.update({**plain, "Labels": {"tier": "front"}})

    network = client.networks.create(
        "shop", driver="overlay", attachable=True, labels={"team": "blue"}, scope="swarm",
        ipam=docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.44.0.0/24")]),
    )  # fmt: skip
    secret = client.secrets.create(name="key", data=b"s3cr3t", labels={"team": "blue"})
    config = client.configs.create(name="settings", data=b"calm", labels={"team": "blue"})
    service = client.services.create(
        "busybox", ["sh"], args=["-c", "echo up; exec sleep infinity"], name="web",
        cap_add=["SYS_NICE"], cap_drop=["CHOWN"], constraints=["node.labels.tier == front"],
        container_labels={"of": "box"}, dns_config=docker.types.DNSConfig(search=["example.org"]),
        endpoint_spec=docker.types.EndpointSpec(mode="vip", ports={8180: (80, "tcp", "ingress")}),
        env=["COLOUR=blue"], groups=["users"], healthcheck=docker.types.Healthcheck(
            test=["CMD", "true"], interval=SECOND // 2, timeout=5 * SECOND, retries=3),
        hostname="{{.Service.Name}}-{{.Task.Slot}}", hosts={"db": "10.1.2.3"}, init=True,
        labels={"team": "blue"}, log_driver="json-file", log_driver_options={"max-size": "1m"},
        maxreplicas=4, mode=docker.types.ServiceMode("replicated", 1),
        mounts=[docker.types.Mount("/fast", None, type="tmpfs", tmpfs_size=1 << 20)],
        networks=[docker.types.NetworkAttachmentConfig(network.id, aliases=["counter"])],
        preferences=[("spread", "node.labels.tier")], read_only=True,
        resources=docker.types.Resources(cpu_limit=SECOND // 2, mem_limit=64 << 20, mem_reservation=8 << 20),
        restart_policy=docker.types.RestartPolicy("any", delay=SECOND, max_attempts=5),
        rollback_config=docker.types.RollbackConfig(parallelism=2, monitor=SECOND // 10),
        secrets=[docker.types.SecretReference(secret.id, "key", filename="api", uid="33", mode=0o400)],
        configs=[docker.types.ConfigReference(config.id, "settings", filename="/etc/app.conf")],
        stop_grace_period=SECOND // 5, stop_signal="SIGTERM", sysctls={"net.core.somaxconn": "321"},
        update_config=docker.types.UpdateConfig(parallelism=1, monitor=SECOND // 10, order="start-first"),
        tty=False, user="www-data", workdir="/srv",
    )  # fmt: skip
    (task,) = cluster.running("web", 1)
    seen = Seen(cluster, "web", task)
    assert seen.host == "host3"
    assert "COLOUR=blue" in seen.environ
    assert (
        seen.sh("cat /run/secrets/api /etc/app.conf; stat -c ' %a %u' /run/secrets/api")
        == "s3cr3tcalm 400 33"
    )
    assert (seen.sh("hostname"), seen.status["Uid"].split()[0]) == ("web-1", "33")
    assert seen.capable(23)
    assert not seen.capable(0)
    assert ["10.1.2.3", "db"] in seen.hosts_file
    assert seen.resolves("counter")
    assert seen.sysctl("net/core/somaxconn") == "321"
    assert ",ro" in seen.mounts["/"]
    assert seen.limits & {f"memory.limit_in_bytes={64 << 20}", f"memory.max={64 << 20}"}
    eventually("it wrote", lambda: b"".join(service.logs(stdout=True)) == b"up\n")

    service.reload()
    assert service.scale(3)
    cluster.running("web", 3)
    service.reload()
    assert service.force_update()
    eventually(
        "all are replaced", lambda: task["ID"] not in {t["ID"] for t in cluster.tasks_in("web", "running")}
    )
    eventually("it is over", lambda: finished(client.services.get("web")))
    service.reload()
    assert service.attrs["Spec"]["TaskTemplate"]["ForceUpdate"] == 1
    assert service.attrs["Spec"]["Mode"]["Replicated"]["Replicas"] == 3
    with pytest.raises(docker.errors.APIError, match="in use"):
        secret.remove()
    assert {t["Status"]["State"] for t in service.tasks({"desired-state": "running"})} == {"running"}
    service.remove()
    secret.remove()
    config.remove()
    eventually("the network can go", lambda: network.remove() is None)
    assert client.secrets.list() == client.configs.list() == client.services.list() == []
    node.reload()
    node.update(plain)


def finished(service: "docker.models.services.Service") -> bool:
    """Whether its update is complete."""
    return str(service.attrs.get("UpdateStatus", {}).get("State")) == "completed"
