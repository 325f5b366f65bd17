"""A service's virtual address against its task's own, and overlays against a plain veth."""

from functools import partial

from bench import net_tools
from bench.cluster import SHOAL, Options, create, playground, running, sleepers, wait_running
from bench.net_tools import HTTP_PORT, Contest, Sample, Spot, Tools
from bench.plain_hosts import ADDRESSES, PlainHosts
from bench.report import Bar
from shoal.cli.client import Engine
from shoal.playground.playground import Playground

ROUNDS = 5
HOSTS = 2
NETWORK = "shop"
THROUGHPUT, CPU, OVERLAY = 0.95, 1.10, 0.85
KINDS = {"keep-alive": "requests/s", "connections": "connections/s", "stream": "Gb/s"}
PLACES = {"near": "the same host", "far": "across hosts"}
PLAIN = "plain veth between two hosts"


def place_service(place: Playground, name: str, host: str) -> tuple[Spot, str, str]:
    """A service of one sleeping task on a host: where it is, its own address, its virtual address."""
    engine = place.engine("host1")
    id = create(engine, sleepers(name, 1, [NETWORK], [f"node.hostname=={host}"]))
    wait_running(engine, id, 1)
    (task,) = running(engine, id)
    own = str(task["NetworksAttachments"][0]["Addresses"][0]).partition("/")[0]
    container = task["Status"]["ContainerStatus"]["ContainerID"]
    return net_tools.container_spot(place, host, container), own, virtual(engine, id)


def virtual(engine: Engine, service: str) -> str:
    """A service's first virtual address."""
    endpoint = engine.get(f"/services/{service}")["Endpoint"]
    return str(endpoint["VirtualIPs"][0]["Addr"]).partition("/")[0]


def ways(
    tools: Tools, client: Spot, addresses: dict[str, str], web: int, sink: int
) -> dict[str, dict[str, partial[Sample]]]:
    """By kind and address: what takes a sample."""
    found: dict[str, dict[str, partial[Sample]]] = {kind: {} for kind in KINDS}
    for name, address in addresses.items():
        for kind, close in (("keep-alive", False), ("connections", True)):
            found[kind][name] = partial(tools.requests, client, address, HTTP_PORT, web, close=close)
        found["stream"][name] = partial(tools.stream, client, address, sink)
    return found


def shown(kind: str, rate: float) -> str:
    """A rate."""
    return f"{rate / 1e9:.2f}" if kind == "stream" else f"{rate:,.0f}"


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "17. East-west: a service's address against the task's own",
        f"at least {THROUGHPUT} of the throughput, at most {CPU} of the CPU for a connection; an overlay "
        f"between hosts at least {OVERLAY} of a plain veth between them",
        ("way", "kind", "direct", "CPU", "service's address", "CPU", "rate", "CPU", "failed"),
    )
    contests: dict[tuple[str, str], Contest] = {}
    with playground(SHOAL, HOSTS, 1, options.image) as place, net_tools.unpacked() as tools:
        place.engine("host1").post("/networks/create", {"Name": NETWORK, "Driver": "overlay"})
        client, _, _ = place_service(place, "client", "host1")
        client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535")
        for name, host in (("near", "host1"), ("far", "host2")):
            spot, own, vip = place_service(place, name, host)
            found = ways(tools, client, {"direct": own, "vip": vip}, tools.web(spot), tools.sink(spot))
            contests |= {(name, kind): Contest(dict(found[kind])) for kind in KINDS}
        with PlainHosts(place) as plain:
            one, other = plain.spots
            sink = tools.sink(other)
            far = contests["far", "stream"]
            contests["far", "stream"] = Contest(
                far.ways | {PLAIN: partial(tools.stream, one, ADDRESSES[1], sink)}
            )
            for contest in contests.values():  # the first packets find out who is where
                for way in contest.ways.values():
                    way()
            for _ in range(options.rounds(ROUNDS)):
                for contest in contests.values():
                    contest.round()
        led = "rules" if client.translated(vip) else "connect()"
    verdicts(bar, contests)
    bar.notes.append(f"A service's address is led to its task by {led}.")
    return bar


def verdicts(bar: Bar, contests: dict[tuple[str, str], Contest]) -> None:
    """Judge, and show the figures."""
    for (name, kind), contest in contests.items():
        rate, cpu = contest.rates("vip", "direct"), contest.cpus("vip", "direct")
        unit = "ms/GB" if kind == "stream" else "µs"
        bar.rows.append(
            (
                *(PLACES[name], KINDS[kind], shown(kind, contest.rate("direct"))),
                *(f"{contest.cpu('direct'):.1f} {unit}", shown(kind, contest.rate("vip"))),
                *(f"{contest.cpu('vip'):.1f} {unit}", f"{rate:.3f}", f"{cpu:.3f}"),
                str(sum(map(contest.failed, ("direct", "vip")))),
            )
        )
        bar.check(rate >= THROUGHPUT, f"{PLACES[name]}, {KINDS[kind]}: {rate:.3f} of direct")
        if kind == "connections":
            bar.check(cpu <= CPU, f"{PLACES[name]}: {cpu:.3f} of direct's CPU for a connection")
    stream = contests["far", "stream"]
    ratio = stream.rates("direct", PLAIN)
    bar.check(ratio >= OVERLAY, f"overlay between hosts: {ratio:.3f} of a plain veth's throughput")
    bar.notes += [
        f"{PLAIN}, over the same underlay, without Shoal: {shown('stream', stream.rate(PLAIN))} Gb/s, "
        f"{stream.cpu(PLAIN):.1f} ms/GB; the overlay takes {stream.cpus('direct', PLAIN):.2f} of its CPU.",
        f"wrk (32 connections, a thread), nginx (one process) and iperf3 (one stream) in the networks of "
        f"tasks; {len(stream.samples[PLAIN])} rounds of a second, in turn. Rates: the best round's; CPU: of "
        "both ends together, ratios the median of the rounds'.",
    ]
