"""Several files over one another."""

import pytest

from shoal.stack.node import ComposeError
from tests.unit.stack.compose import stack


def test_later_files_win_and_lists_grow() -> None:
    base = """
services:
  web:
    image: one
    command: [a, b]
    environment: [A=1, B=1]
    ports: ["80:80"]
    volumes: ["/x:/data"]
    networks: [n]
    dns: 1.1.1.1
    deploy: {replicas: 1, labels: {k: 1}}
    logging: {driver: syslog, options: {o: 1}}
networks: {n: {}}
"""
    over = """
services:
  web:
    image: two
    command: c
    environment: {B: 2, C: 3}
    ports: ["81:81", "80:80"]
    volumes: ["/y:/data"]
    networks: {n: {aliases: [w]}}
    dns: [2.2.2.2]
    deploy: {replicas: 5}
    logging: {driver: local}
  other: {image: three}
"""
    found = {s.name: s.spec for s in stack(base, over).services}
    assert set(found) == {"web", "other"}
    web = found["web"]
    container = web["TaskTemplate"]["ContainerSpec"]
    assert (container["Image"], container["Args"]) == ("two", ["c"])
    assert container["Env"] == ["A=1", "B=2", "C=3"]
    assert container["DNSConfig"] == {"Nameservers": ["1.1.1.1", "2.2.2.2"]}
    assert [mount["Source"] for mount in container["Mounts"]] == ["/y"]
    assert [port["PublishedPort"] for port in web["EndpointSpec"]["Ports"]] == [80, 81]
    assert web["TaskTemplate"]["Networks"][0]["Aliases"] == ["w", "web"]
    assert web["Mode"] == {"Replicated": {"Replicas": 5}}
    assert web["Labels"]["k"] == "1"
    assert web["TaskTemplate"]["LogDriver"] == {"Name": "local", "Options": {}}


def test_a_mistake_in_the_second_file_names_it() -> None:
    with pytest.raises(
        ComposeError, match=r"^b\.yml:1: services\.a: this is a list, but a\.yml:1 has a mapping"
    ):
        stack("services: {a: {image: i}}", "services: {a: [b]}")
