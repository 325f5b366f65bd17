"""Published ports that are open at one address, a subnet, or an interface only."""

import pytest

from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground


def test_a_port_of_the_mesh_is_open_where_the_label_says(cluster: Cluster, web_image: str) -> None:
    cluster.run(
        "web",
        "--publish",
        "8080:80",
        "--label",
        "shoal.publish.8080=" + cluster.address("host1"),
        image=web_image,
    )

    def open_at(port: int = 8080) -> list[str]:
        found = []
        for host in cluster.hosts:
            done = cluster.from_client("curl", "-fsS", "-m", "3", f"http://{cluster.address(host)}:{port}/")
            assert done.returncode in (0, 7), done.stderr  # answered, or refused at once
            found += [host] if done.returncode == 0 else []
        return found

    def becomes(*hosts: str) -> None:
        eventually(f"the port is open at {hosts}", lambda: open_at() == list(hosts))

    becomes("host1")
    (task,) = cluster.tasks_in("web", "running")
    uplink = cluster.playground.run(
        "host2", ["sh", "-c", f"ip -o -4 addr | grep -F {cluster.address('host2')}/ | cut -d' ' -f2"]
    ).stdout.split()[0]
    for label, hosts in (
        (f"{cluster.address('host2')},{cluster.address('host3')}", ("host2", "host3")),
        ("192.0.2.0/24", ("host1", "host2", "host3")),
        ("lo", ()),
        (uplink, ("host1", "host2", "host3")),
    ):
        cluster.docker("service", "update", "--detach", "--label-add", f"shoal.publish.8080={label}", "web")
        becomes(*hosts)
    cluster.docker("service", "update", "--detach", "--label-rm", "shoal.publish.8080", "web")
    becomes(*cluster.hosts)
    assert [found["ID"] for found in cluster.tasks_in("web", "running")] == [task["ID"]]
    words = ("service", "update", "--detach", "--label-add", "shoal.publish=10.0.0.1/99", "web")
    assert "list at most 32 IP addresses, subnets or names of interfaces" in cluster.refused(*words)


def test_a_node_leads_connections_to_its_own_tasks(cluster: Cluster, web_image: str) -> None:
    """And rules that somebody takes away are back before the next request."""
    cluster.run(
        "web",
        "--publish",
        "8083:80",
        "--constraint",
        "node.hostname!=host3",
        "--mode",
        "global",
        "--label",
        "shoal.publish.policy=local-first",
        replicas=2,
        image=web_image,
    )
    eventually("every node answers", lambda: all(cluster.fetch(host, 8083) for host in cluster.hosts))

    def servers(host: str) -> set[str]:
        return {str(cluster.fetch(host, 8083)) for _ in range(8)}

    def preferred() -> list[set[str]]:
        """One server for each of the two nodes, their own; a task that just began to serve is spared."""
        own = [servers("host1"), servers("host2")]
        return own if [len(each) for each in own] == [1, 1] and own[0] != own[1] else []

    one, two = eventually("each node leads to its own task", preferred)
    assert servers("host3") <= one | two
    cluster.docker("service", "update", "--detach", "--label-add", "shoal.publish.policy=local", "web")
    url = f"http://{cluster.address('host3')}:8083/"
    eventually(
        "the node without a task refuses",
        lambda: cluster.from_client("curl", "-fsS", "-m", "3", url).returncode == 7,
    )
    cluster.playground.run("host1", ["nft", "flush", "ruleset"])
    eventually(
        "the rules are back",
        lambda: (
            "port_tcp_8083" in cluster.playground.run("host1", ["nft", "list", "table", "ip", "shoal"]).stdout
        ),
    )
    assert servers("host1") == one
    inside = cluster.playground.run("host1", ["nft", "list", "set", "ip", "shoal", "control_ports"]).stdout
    assert "2377" in inside


def test_a_port_of_its_own_host_is_open_where_the_label_says(cluster: Cluster, web_image: str) -> None:
    publish = ("--publish", "published=8081,target=80,mode=host", "--constraint", "node.hostname==host1")
    cluster.run("web", *publish, "--label", f"shoal.publish={cluster.address('host1')}", image=web_image)
    assert cluster.fetch("host1", 8081)
    inside = cluster.playground.run("host1", ["curl", "-sS", "-m", "3", "http://127.0.0.1:8081/"])
    assert inside.returncode == 7, inside.stdout + inside.stderr
    publish = ("--publish", "published=8082,target=80,mode=host", "--constraint", "node.hostname==host1")
    cluster.create("other", *publish, "--label", f"shoal.publish={cluster.address('host2')}", image=web_image)
    assert "is to be open at" in cluster.complaint("other")
