"""What a node is without its cluster: networks, volumes, events and disk space of its own."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from tests.support.cluster import Cluster, eventually
from tests.support.registries import OPEN

pytestmark = pytest.mark.playground

SLEEP = ("busybox", "sleep", "infinity")


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Cluster]:
    """The first host; its containers, networks and volumes are gone afterwards."""
    try:
        yield cluster
    finally:
        for host in ("host1", "host2"):
            for kind, listing in (
                ("container", ("ls", "--all", "--quiet", "--filter", "is-task=false")),
                ("network", ("ls", "--quiet", "--filter", "type=custom", "--filter", "scope=local")),
                ("volume", ("ls", "--quiet")),
            ):
                for id in cluster.docker(kind, *listing, host=host).split():
                    cluster.attempt(kind, "rm", "--force", id, host=host)


def start(cluster: Cluster, name: str, *options: str, host: str = "host1") -> None:
    cluster.docker("run", "--detach", "--name", name, "--stop-timeout", "0", *options, *SLEEP, host=host)


def reaches(cluster: Cluster, name: str, target: str) -> bool:
    return cluster.attempt("exec", name, "ping", "-c1", "-W1", target).returncode == 0


def test_bridges_do_what_their_options_say(node: Cluster) -> None:
    bridge = "com.docker.network.bridge."
    lonely = ("--opt", f"{bridge}enable_icc=false", "--opt", f"{bridge}name=lonely0")
    node.docker("network", "create", *lonely, "lonely")
    node.docker("network", "create", "--internal", "inside")
    six = ("--ipv6", "--subnet", "172.31.9.0/24", "--subnet", "fd00:99::/64")
    node.docker("network", "create", *six, "--opt", "com.docker.network.driver.mtu=1400", "six")
    for name in ("one", "two"):
        start(node, name, "--network", "lonely")
        node.docker("network", "connect", "six", name)
    start(node, "shut", "--network", "inside")
    peer = {n: node.inspect("container", n)["NetworkSettings"]["Networks"] for n in ("one", "two")}
    assert not reaches(node, "one", peer["two"]["lonely"]["IPAddress"])  # isolated from each other,
    assert reaches(node, "one", peer["one"]["lonely"]["Gateway"])  # not from the host
    assert reaches(node, "one", "203.0.113.10")
    assert not reaches(node, "shut", "203.0.113.10")
    assert reaches(node, "one", peer["two"]["six"]["IPAddress"])
    assert reaches(node, "one", peer["two"]["six"]["GlobalIPv6Address"])
    asked = node.docker("exec", "one", "nslookup", "-type=aaaa", "two", "127.0.0.11")
    assert peer["two"]["six"]["GlobalIPv6Address"] in asked
    assert "mtu 1400" in node.docker("exec", "one", "ip", "link", "show", "eth1")
    assert "lonely0" in node.playground.run("host1", ["ip", "-o", "link"]).stdout
    containers = node.inspect("network", "six")["Containers"]
    assert {each["Name"] for each in containers.values()} == {"one", "two"}
    assert all(each["IPv6Address"].endswith("/64") for each in containers.values())


def test_a_container_changes_its_networks_while_it_runs(node: Cluster) -> None:
    """From the default bridge to one with names, with a published port that follows."""
    client = node.client("host1")
    pool = IPAMPool(subnet="172.31.10.0/24", iprange="172.31.10.128/25", gateway="172.31.10.254")
    client.networks.create("shop", ipam=IPAMConfig(pool_configs=[pool]))
    start(node, "server", "--publish", "8141:80")
    serve = "mkdir /www; echo hello > /www/hello; httpd -p 80 -h /www"
    node.docker("exec", "server", "sh", "-c", serve)
    start(node, "asker", "--network", "shop")
    resolver = node.docker("exec", "server", "cat", "/etc/resolv.conf")
    client.networks.get("shop").connect("server", aliases=["till"], ipv4_address="172.31.10.10")
    with pytest.raises(APIError, match="already exists"):
        client.networks.get("shop").connect("server")
    assert "172.31.10.10" in node.docker("exec", "asker", "nslookup", "till", "127.0.0.11")
    assert "127.0.0.11" in node.docker("exec", "server", "cat", "/etc/resolv.conf")
    assert "127.0.0.11" not in resolver
    assert "172.31.10.10" in node.docker("exec", "server", "cat", "/etc/hosts")
    assert reaches(node, "server", "asker")  # it asks names now
    node.docker("network", "disconnect", "bridge", "server")
    assert "default via 172.31.10.254" in node.docker("exec", "server", "ip", "route")
    eventually("the port leads to its other address", lambda: node.fetch("host1", 8141, "/hello"))
    with pytest.raises(APIError, match="is not connected"):
        client.networks.get("bridge").disconnect("server", force=True)
    assert "has active endpoints" in node.refused("network", "rm", "shop")
    late = client.containers.create("busybox", name="late")
    with pytest.raises(APIError, match="no configured subnet contains"):
        client.networks.get("shop").connect(late, ipv4_address="10.9.9.9")
    with pytest.raises(APIError, match="user defined networks only"):
        client.networks.get("bridge").connect(late, ipv4_address="172.17.0.99")
    refused = {
        "pool request": ("network", "create", "--subnet", "172.31.10.0/25", "other"),
        "already exists": ("network", "create", "shop"),
        "pre-defined network": ("network", "rm", "bridge"),
        "in host network mode": ("network", "connect", "host", "asker"),
        'only one instance of "host"': ("network", "create", "--driver", "host", "mine"),
        'plugin "nosuch" not found': ("network", "create", "--driver", "nosuch", "mine"),
        "does not exist on this node": ("network", "create", "-d", "macvlan", "-o", "parent=eth9", "mine"),
    }
    for words, command in refused.items():
        assert words in node.refused(*command), command


def test_containers_of_no_service_in_a_swarm_network(node: Cluster) -> None:
    node.docker("network", "create", "--driver", "overlay", "--attachable", "open")
    node.docker("network", "create", "--driver", "overlay", "closed")
    setting = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    (web,) = node.run("web", "--network", f"name=open,driver-opt={setting}")
    assert node.enter(web, "cat /proc/sys/net/ipv4/conf/eth0/log_martians") == "1"
    start(node, "here", "--network", "open", "--network-alias", "near")
    start(node, "there", "--network", "open", host="host2")
    for name in ("there", "web", "tasks.web"):
        eventually(f"{name} is reached", lambda name=name: reaches(node, "here", name))
    far = node.docker("exec", "there", "nslookup", "near", "127.0.0.11", host="host2")
    assert node.inspect("container", "here")["NetworkSettings"]["Networks"]["open"]["IPAddress"] in far
    assert "not manually attachable" in node.refused("run", "--rm", "--network", "closed", *SLEEP)
    eventually(
        "its name is taken on the node, too",
        lambda: "already exists" in node.refused("network", "create", "open"),
    )
    for verb in ("connect", "disconnect"):
        task = web["Status"]["ContainerStatus"]["ContainerID"]
        place = node.host_of(web)
        assert "is a task of web" in node.refused("network", verb, "open", task, host=place)
    told = json.loads(node.docker("network", "inspect", "--verbose", "open"))[0]
    assert {peer["IP"] for peer in told["Peers"]} >= {node.address("host1"), node.address("host2")}
    assert told["Services"]["web"]["Tasks"]
    assert "here" in {each["Name"] for each in told["Containers"].values()}
    node.docker("service", "rm", "web")
    assert "is in use by container" in node.refused("network", "rm", "open")
    for name, host in (("here", "host1"), ("there", "host2")):
        node.docker("rm", "--force", name, host=host)
    node.docker("network", "rm", "open", "closed")


def test_events_of_this_node_and_of_the_cluster(node: Cluster) -> None:
    begun = datetime.now(UTC).isoformat()
    node.docker("secret", "create", "mine", "-", stdin="x")
    api = node.client("host1").api
    with closing(api.events(decode=True, filters={"container": ["seen"], "event": ["die"]})) as stream:
        node.docker("network", "create", "shop")
        options = ("--name", "seen", "--label", "a=b", "--network", "shop", "--volume", "data:/data")
        assert node.attempt("run", *options, "busybox", "sh", "-c", "exit 3").returncode == 3
        event = next(stream)
    assert event["Actor"]["Attributes"] | {"execDuration": ""} == {
        "exitCode": "3", "execDuration": "", "image": "busybox", "name": "seen", "a": "b",
    }  # fmt: skip
    assert (event["status"], event["from"], event["scope"]) == ("die", "busybox", "local")
    node.docker("rm", "seen")
    node.docker("tag", "busybox", "another:1")
    node.docker("rmi", "another:1")
    node.docker("network", "rm", "shop")
    node.docker("volume", "rm", "data")
    until = datetime.now(UTC).isoformat()

    def shown(*filters: str) -> list[str]:
        words = [word for text in filters for word in ("--filter", text)]
        lines = node.docker("events", "--since", begun, "--until", until, *words).splitlines()
        return [" ".join(line.split()[1:3]) for line in lines]

    every = shown()
    assert [each for each in every if each.startswith("container")] == [
        "container create", "container attach", "container start", "container die", "container destroy",
    ]  # fmt: skip
    for told in (
        "network create", "network connect", "network disconnect", "network destroy", "volume create",
        "volume mount", "volume unmount", "volume destroy", "image tag", "image untag", "secret create",
    ):  # fmt: skip
        assert told in every, told
    assert shown("label=a=b", "event=start") == ["container start"]
    assert shown("type=volume", "volume=data", "event=create") == ["volume create"]
    containers = {each for each in every if each.startswith("container")}
    assert set(shown("image=busybox", "type=container")) == containers
    assert set(shown("scope=swarm")) == {"secret create"}
    assert shown("network=shop", "event=create") == ["network create"]


def test_space_is_counted_and_set_free(node: Cluster) -> None:
    script = "head -c 3000000 /dev/zero > /file; head -c 5000000 /dev/zero > /data/file"
    volumes = ("--volume", "data:/data", "--volume", "/anonymous")
    node.docker("run", "--name", "writer", *volumes, "busybox", "sh", "-c", script)
    usage = node.client("host1").df()
    (container,) = [each for each in usage["Containers"] if each["Names"] == ["/writer"]]
    assert 3_000_000 <= container["SizeRw"] < 4_000_000
    assert container["SizeRootFs"] > container["SizeRw"]
    (volume,) = [each for each in usage["Volumes"] if each["Name"] == "data"]
    assert volume["UsageData"]["RefCount"] == 1
    assert 5_000_000 <= volume["UsageData"]["Size"] < 6_000_000
    (image,) = [each for each in usage["Images"] if "busybox:latest" in each["RepoTags"]]
    assert (image["Containers"], image["SharedSize"]) == (1, 0)
    assert "writer" in node.docker("system", "df", "--verbose")
    node.docker("network", "create", "idle")
    said = node.docker("system", "prune", "--force", "--volumes")
    assert "idle" in said
    assert node.docker("ps", "--all", "--quiet", "--filter", "is-task=false") == ""
    assert node.docker("volume", "ls", "--quiet") == "data"  # it has a name
    assert "Total reclaimed space: 5.001MB" in node.docker("volume", "prune", "--all", "--force")


def test_images_leave_and_come_as_a_whole(node: Cluster, web_image: str, tmp_path: Path) -> None:
    """Saved, exported, imported with changes, pushed, and pulled elsewhere."""
    saved, files = str(tmp_path / "saved.tar"), str(tmp_path / "files.tar")
    node.docker("tag", "busybox", "spare:1")
    node.docker("save", "--output", saved, "spare:1", "busybox")
    node.docker("rmi", "spare:1")
    assert set(node.docker("load", "--input", saved).splitlines()) == {
        "Loaded image: spare:1", "Loaded image: busybox:latest",
    }  # fmt: skip
    assert "No such image" in node.refused("save", "--output", saved, "nosuch")
    node.docker("run", "--name", "source", "busybox", "sh", "-c", "echo hello > /greeting")
    node.docker("export", "--output", files, "source")
    image = f"{OPEN}/test/made:1"
    node.docker("import", "--change", 'CMD ["cat", "/greeting"]', "--message", "note", files, image)
    size = {name: node.inspect("image", name)["Size"] for name in (image, "busybox")}
    assert size[image] < 2 * size["busybox"]  # its hard links are links still
    assert "note" in node.docker("history", image)
    assert "digest: sha256:" in node.docker("push", image)
    assert node.docker("run", "--rm", image, host="host2") == "hello"
    assert (
        node.inspect("image", image)["RepoDigests"]
        == node.inspect("image", image, host="host2")["RepoDigests"]
    )
    script = "echo hello > /greeting; rm /etc/group; echo x > /data/file"
    node.docker("run", "--name", "changed", "--volume", "/data", "busybox", "sh", "-c", script)
    change = 'CMD ["sh", "-c", "cat /greeting; ls /data /etc/group"]'
    node.docker("commit", "--message", "kept", "--change", change, "changed", "spare:2")
    done = node.attempt("run", "--rm", "spare:2")
    assert (done.stdout.split(), "/etc/group: No such file" in done.stderr) == (["hello", "/data:"], True)
    layers = [node.inspect("image", name)["RootFS"]["Layers"] for name in ("busybox", "spare:2")]
    assert layers[1][:-1] == layers[0]
    node.docker("rm", "changed")
    node.docker("rmi", "spare:2")
    for host in ("host1", "host2"):
        node.docker("rmi", "--force", image, host=host)
    node.docker("rmi", "spare:1")


def test_a_swarm_network_of_two_subnets(cluster: Cluster) -> None:
    """Tasks are in both, as neither has room for all; they all reach each other and the world."""
    subnets = ("--subnet", "10.70.0.0/29", "--subnet", "10.71.0.0/29")
    cluster.docker("network", "create", "--driver", "overlay", *subnets, "wide")
    tasks = cluster.run("web", "--network", "wide", "--", "httpd", "-f", "-p", "80", "-h", "/etc", replicas=7)
    place = {task["ID"]: task["NetworksAttachments"][0]["Addresses"][0] for task in tasks}
    first = next(task for task in tasks if place[task["ID"]].startswith("10.70."))
    last = next(task for task in tasks if place[task["ID"]].startswith("10.71."))
    for task in (first, last):
        for address in place.values():
            assert cluster.enter(task, f"ping -c1 -W3 {address.partition('/')[0]}")
        assert cluster.enter(task, "timeout 5 wget -q -O - http://web/hostname")
        assert cluster.enter(task, "ping -c1 -W3 203.0.113.10")
