"""An encrypted network against a plain one, between the same two tasks on two hosts."""

from functools import partial

from bench import net_tools
from bench.cluster import SHOAL, Options, create, playground, running, sleepers, wait_running
from bench.net_tools import Contest, Spot, Tools
from bench.report import Bar
from shoal.cli.client import Engine
from shoal.playground.playground import Playground

ROUNDS = 5
NETWORKS = {"plain": {}, "encrypted": {"encrypted": ""}}


def place_task(place: Playground, name: str, host: str) -> tuple[Spot, dict[str, str]]:
    """A task on a host and on both networks: where it is, and its address in each."""
    engine: Engine = place.engine("host1")
    id = create(engine, sleepers(name, 1, list(NETWORKS), [f"node.hostname=={host}"]))
    wait_running(engine, id, 1)
    (task,) = running(engine, id)
    addresses = {
        str(each["Network"]["Spec"]["Name"]): str(each["Addresses"][0]).partition("/")[0]
        for each in task["NetworksAttachments"]
    }
    container = task["Status"]["ContainerStatus"]["ContainerID"]
    return net_tools.container_spot(place, host, container), addresses


def contest(tools: Tools, client: Spot, server: Spot, addresses: dict[str, str]) -> Contest:
    """One stream through either network."""
    sink = tools.sink(server)
    return Contest({name: partial(tools.stream, client, addresses[name], sink) for name in NETWORKS})


def run(options: Options) -> Bar:
    """Throughput and CPU. Nothing is asked of it: it depends on who encrypts."""
    bar = Bar(
        "23. Encrypted networks against plain ones",
        "none: what encryption costs between two hosts",
        ("network", "Gb/s", "CPU, ms/GB", "of plain"),
    )
    with playground(SHOAL, 2, 1, options.image) as place, net_tools.unpacked() as tools:
        engine = place.engine("host1")
        for name, driver_options in NETWORKS.items():
            body = {"Name": name, "Driver": "overlay", "Options": driver_options}
            engine.post("/networks/create", body)
        client, _ = place_task(place, "client", "host1")
        server, addresses = place_task(place, "server", "host2")
        found = contest(tools, client, server, addresses)
        for way in found.ways.values():  # the first packets shake hands
            way()
        for _ in range(options.rounds(ROUNDS)):
            found.round()
        said = engine.get("/networks/encrypted")["Encryption"]["Nodes"]
    for name in NETWORKS:
        rate = found.rates(name, "plain")
        bar.rows.append((name, f"{found.rate(name) / 1e9:.2f}", f"{found.cpu(name):.0f}", f"{rate:.3f}"))
    methods = sorted({str(node["Method"]) for node in said})
    bar.notes.append(
        f"WireGuard by: {', '.join(methods)}. iperf3, one stream, rounds of a second in turn; CPU is of "
        "iperf3's two ends, without wireguard-go."
    )
    return bar
