"""The routing mesh, which keeps the client's address, against plain routing of the same way without NAT."""

from functools import partial

from bench import net_tools
from bench.cluster import SHOAL, Json, Options, create, playground, running, sleepers, until, wait_running
from bench.net_tools import HTTP_PORT, Contest, Spot, host_spot
from bench.plain_hosts import SERVER, PlainHosts
from bench.report import Bar
from bench.web import PORT
from shoal.playground.layout import CLIENT, CLIENT_ADDRESS
from shoal.playground.playground import Playground

ROUNDS = 12
HOSTS = 2
KEEP_ALIVE, CONNECTIONS = 0.93, 0.85
MESH, LOCAL, PLAIN = "mesh, task on another host", "mesh, task on the entry host", "routed, no NAT"
KINDS = {"keep-alive": KEEP_ALIVE, "connections": CONNECTIONS}


def published(name: str, port: int, host: str) -> Json:
    """The spec of a service of one task on a host, its port published on every node."""
    spec = sleepers(name, 1, (), [f"node.hostname=={host}"])
    wanted = {"TargetPort": HTTP_PORT, "PublishedPort": port, "Protocol": "tcp", "PublishMode": "ingress"}
    return spec | {"EndpointSpec": {"Ports": [wanted]}}


def place_task(place: Playground, name: str, port: int, host: str) -> Spot:
    """Start the service; where its task is."""
    engine = place.engine("host1")
    id = create(engine, published(name, port, host))
    wait_running(engine, id, 1)
    (task,) = running(engine, id)
    return net_tools.container_spot(place, host, task["Status"]["ContainerStatus"]["ContainerID"])


def succeeds(place: Playground, command: list[str]) -> bool:
    """Whether the client can do that."""
    return place.run(CLIENT, command).returncode == 0


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "18. The routing mesh against plain routing",
        "the client's address kept, against plain routing without NAT: at least "
        f"{KEEP_ALIVE} of the requests a second on keep-alive, {CONNECTIONS} of the connections a second",
        ("way", *(word for kind in KINDS for word in (f"{kind}: /s", "CPU", "rate", "CPU")), "failed"),
    )
    contests: dict[str, Contest] = {}
    with playground(SHOAL, HOSTS, 1, options.image) as place, net_tools.unpacked() as tools:
        client, entry = host_spot(place, CLIENT), place.host("host1").address
        client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535")
        addresses, servers = {}, {}
        for name, way, port, host in (("far", MESH, PORT, "host2"), ("near", LOCAL, PORT + 1, "host1")):
            # Each request's source is verified: for another than the client's address there is no 200.
            servers[way] = tools.web(place_task(place, name, port, host), only=CLIENT_ADDRESS)
            addresses[way] = (entry, port)
        with PlainHosts(place) as plain:
            servers[PLAIN] = tools.web(plain.route_through(), only=CLIENT_ADDRESS)
            addresses[PLAIN] = (SERVER, HTTP_PORT)
            for address, port in addresses.values():
                ask = ["curl", "-fsS", "-m", "2", f"http://{address}:{port}/"]
                until(f"{address}:{port} answers", partial(succeeds, place, ask))
            for kind in KINDS:
                contests[kind] = Contest(
                    {
                        way: partial(
                            tools.requests, client, *addresses[way], servers[way], close=kind == "connections"
                        )
                        for way in (MESH, PLAIN, LOCAL)
                    }
                )
            for _ in range(options.rounds(ROUNDS)):
                for contest in contests.values():
                    contest.round()
    verdicts(bar, contests)
    return bar


def verdicts(bar: Bar, contests: dict[str, Contest]) -> None:
    """Judge, and show the figures."""
    for kind, contest in contests.items():
        ratio, cpu = contest.rates(MESH, PLAIN), contest.cpus(MESH, PLAIN)
        bar.check(ratio >= KINDS[kind], f"{kind}: {ratio:.3f} of plain routing, {cpu:.2f} of its CPU")
    failed = {way: sum(each.failed(way) for each in contests.values()) for way in (MESH, PLAIN, LOCAL)}
    bar.check(not any(failed.values()), f"requests without a 200 for the client's own address: {failed}")
    for way in (MESH, PLAIN, LOCAL):
        cells = []
        for contest in contests.values():
            cells += [f"{contest.rate(way):,.0f}", f"{contest.cpu(way):.1f} µs"]
            cells += [f"{contest.rates(way, PLAIN):.3f}", f"{contest.cpus(way, PLAIN):.3f}"]
        bar.rows.append((way, *cells, str(failed[way])))
    bar.notes += [
        "The server answers 200 only to the client's own address, in every way and to every request. Plain: "
        "two namespaces on the same underlay with a bridge and VXLAN like Shoal's, and nothing else: no "
        "rules, no NAT, no connection tracking.",
        f"wrk outside the cluster (32 connections, a thread), nginx (one process); "
        f"{len(contests['keep-alive'].samples[MESH])} rounds of a second, in turn. Rates: the best round's; "
        "CPU: of both ends together, ratios the median of the rounds'.",
    ]
