"""Traefik's swarm provider: it runs as a service, finds others by their labels, and follows their tasks."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

PORT = 8160
SERVE = "mkdir /www; hostname >/www/index.html; exec httpd -f -p 8000 -h /www"


def test_it_follows_a_service(cluster: Cluster) -> None:
    program = shutil.which("traefik", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("there is no traefik: setup/tests installs it")
    cluster.docker("network", "create", "--driver", "overlay", "shop")
    socket = cluster.playground.host("host1").socket
    cluster.create(
        "edge", "--network", "shop", "--constraint", "node.hostname==host1", "--publish", f"{PORT}:80",
        "--mount", f"type=bind,source={Path(program).resolve()},target=/traefik,readonly",
        "--mount", f"type=bind,source={socket},target=/var/run/docker.sock",
        "--entrypoint", "/traefik", "--",
        "--providers.swarm.endpoint=unix:///var/run/docker.sock", "--providers.swarm.refreshseconds=1",
        "--providers.swarm.exposedbydefault=false", "--providers.swarm.network=shop",
        "--entrypoints.web.address=:80", "--providers.providersthrottleduration=100ms",
        "--global.checknewversion=false", "--global.sendanonymoususage=false",
    )  # fmt: skip
    cluster.run(
        "web", "--network", "shop", "--hostname", "web-{{.Task.Slot}}", "--label", "traefik.enable=true",
        "--label", "traefik.http.routers.web.rule=Host(`shop.example`)",
        "--label", "traefik.http.services.web.loadbalancer.server.port=8000",
        "--", "sh", "-c", SERVE, replicas=2,
    )  # fmt: skip

    def reached() -> set[str]:
        """Who answers eight requests."""
        url = f"http://{cluster.address('host2')}:{PORT}/"
        command = ["curl", "-sS", "-m", "3", "-H", "Host: shop.example", *[url] * 8]
        return set(cluster.from_client(*command).stdout.split("\n")) - {""}

    for count in (2, 4, 1):
        cluster.docker("service", "scale", "--detach", f"web={count}")
        names = {f"web-{slot}" for slot in range(1, count + 1)}
        eventually(f"it reaches {count}", lambda names=names: reached() == names, pause=0.2)
    cluster.docker("service", "rm", "web")
    eventually("the route is gone", lambda: reached() == {"404 page not found"}, pause=0.2)
