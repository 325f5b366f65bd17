"""Networks, services and containers made and removed again and again; afterwards nothing of them is left.

One overlay and one bridge live through it all, and every task and container is on one of them too: each cycle
takes addresses there, more in all than there are, so that a leak of addresses ends the storm.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.cluster import (
    IMAGE,
    SHOAL,
    Json,
    Options,
    create,
    host_processes,
    playground,
    remove,
    sleepers,
    until,
    wait_running,
)
from bench.net_tools import Spot, host_spot
from bench.report import Bar
from shoal.playground.playground import Playground

CYCLES = 500
HOSTS = 2
AT_ONCE = 8
TIGHT, TIGHT_LOCAL = "10.99.0.0/24", "172.31.99.0/25"
FIRST_PORT = 30000
PATIENCE = 60.0
_COUNTERS = re.compile(r"(packets|bytes|expires|# handle) \S+")

Found = Counter[tuple[str, str]]


class Storm:
    """The cycles; `number` tells the kind and gives names and ports of its own."""

    def __init__(self, place: Playground) -> None:
        self._place = place
        self._swarm = place.engine("host1")
        overlay = {"Name": "tight", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": TIGHT}]}}
        self._tight = self._swarm.post("/networks/create", overlay)["Id"]
        for host in place.hosts():
            local = {"Name": "tight-local", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": TIGHT_LOCAL}]}}
            place.engine(host.name).post("/networks/create", local)

    def cycle(self, number: int) -> None:
        """One of three kinds."""
        (self._service, self._container, self._moving)[number % 3](number)

    def _service(self, number: int) -> None:
        """An overlay, and on it a service with a published port."""
        network = self._swarm.post("/networks/create", {"Name": f"storm-{number}", "Driver": "overlay"})["Id"]
        spec = sleepers(f"storm-{number}", 1, [network, self._tight])
        port = {
            "TargetPort": 80,
            "PublishedPort": FIRST_PORT + number,
            "Protocol": "tcp",
            "PublishMode": "ingress",
        }
        service = create(self._swarm, spec | {"EndpointSpec": {"Ports": [port]}})
        wait_running(self._swarm, service, 1)
        remove(self._swarm, service)
        self._remove_network("host1", network)

    def _start(self, number: int, network: str) -> tuple[str, str]:
        host = self._place.hosts()[number % HOSTS].name
        config: Json = {
            "Image": IMAGE,
            "Cmd": ["sleep", "1000"],
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {
                "NetworkMode": network,
                "PortBindings": {"80/tcp": [{"HostPort": str(FIRST_PORT + number)}]},
            },
        }
        engine = self._place.engine(host)
        container = engine.post("/containers/create", config, name=f"storm-{number}")["Id"]
        engine.post(f"/containers/{container}/start")
        return host, container

    def _container(self, number: int) -> None:
        """A bridge, and on it a container with a published port."""
        host = self._place.hosts()[number % HOSTS].name
        engine = self._place.engine(host)
        network = engine.post("/networks/create", {"Name": f"storm-{number}", "Driver": "bridge"})["Id"]
        _, container = self._start(number, network)
        engine.delete(f"/containers/{container}", force=True)
        self._remove_network(host, network)

    def _moving(self, number: int) -> None:
        """A container that joins a network and leaves it."""
        host, container = self._start(number, "bridge")
        engine = self._place.engine(host)
        engine.post("/networks/tight-local/connect", {"Container": container})
        engine.post("/networks/tight-local/disconnect", {"Container": container})
        engine.post("/networks/tight-local/connect", {"Container": container})
        engine.delete(f"/containers/{container}", force=True)

    def _remove_network(self, host: str, network: str) -> None:
        engine = self._place.engine(host)

        def removed() -> bool:
            engine.delete(f"/networks/{network}")  # refused while a task of it ends
            return True

        until(f"network {network} can be removed", removed, limit=PATIENCE)


def kernel(spot: Spot) -> Iterator[tuple[str, str]]:
    """What a host's kernel holds for its networks."""
    for link in json.loads(spot.run("ip", "-j", "link")):
        yield "links", link["ifname"]
    for link in json.loads(spot.run("ip", "-j", "addr")):
        for address in link["addr_info"]:
            yield "addresses on links", f"{link['ifname']} {address['local']}"
    for entry in json.loads(spot.run("bridge", "-j", "fdb", "show")):
        yield "forwarding entries", f"{entry['ifname']} {entry['mac']} {entry.get('dst', '')}"
    for entry in json.loads(spot.run("ip", "-j", "neigh", "show", "nud", "permanent")):
        yield "neighbours", f"{entry['dev']} {entry['dst']}"
    for family in ("-4", "-6"):
        for line in spot.run("ip", family, "route", "show", "table", "all").splitlines():
            yield "routes", line
        for line in spot.run("ip", family, "rule").splitlines():
            yield "rules of routing", line
    for line in spot.run("nft", "list", "ruleset").splitlines():
        if text := _COUNTERS.sub("", line).strip():
            yield "nft objects", text
    for line in spot.run("conntrack", "-L").splitlines():
        ends = re.findall(r"(?:src|dst)=(\S+)", line)
        if " ESTABLISHED " in line and any(each.startswith(("10.", "172.31.")) for each in ends):
            yield "connections tracked", " ".join(ends)


def snapshot(place: Playground) -> dict[str, Found]:
    """Everything that a host holds, by host."""
    found = {}
    for host in place.hosts():
        spot = host_spot(place, host.name)
        count: Found = Counter(kernel(spot))
        processes = host_processes(place, host.name)
        spaces = set()
        for pid, line in processes.items():
            count["processes", " ".join(line.split()[:3])] += 1
            try:
                spaces.add((Path(f"/proc/{pid}/ns/net")).readlink().name)
                if "shoald" in line or SHOAL.process in f"{line} ":
                    for each in Path(f"/proc/{pid}/fd").iterdir():
                        count["descriptors of daemons", re.sub(r"\d+", "N", str(each.readlink()))] += 1
            except OSError:
                continue  # it has ended, or closed it
        count["network namespaces", "in use"] = len(spaces)
        for line in Path(f"/proc/{spot.pid}/mountinfo").read_text().splitlines():
            count["mounts", line.split()[4]] += 1
        for hierarchy in Path("/sys/fs/cgroup").glob(f"*/{place.layout.cgroup}/{host.name}"):
            for directory in (each for each in hierarchy.rglob("*") if each.is_dir()):
                count["cgroups", str(directory)] += 1
        root = Path(f"/proc/{spot.pid}/root/run/shoal")
        for file in root.rglob("*"):
            count["files in /run/shoal", str(file.relative_to(root))] += 1
        found[host.name] = count
    return found


def beyond(place: Playground, before: dict[str, Found]) -> dict[str, Found]:
    """What is there now and was not."""
    return {host: now - before[host] for host, now in snapshot(place).items()}


def _at_once(storm: Storm, numbers: Iterable[int]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as workers:
        for _ in workers.map(storm.cycle, numbers):
            pass


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "22. What a storm of networks leaves",
        f"{CYCLES} cycles of making and removing networks, services and containers: 0 left of everything",
        ("what", *(f"host{number}: before, left" for number in range(1, HOSTS + 1))),
    )
    cycles = 30 if options.quick else CYCLES
    with playground(SHOAL, HOSTS, 1, options.image) as place:
        storm = Storm(place)
        free = _next_subnets(place)
        _at_once(storm, range(CYCLES, CYCLES + 2 * AT_ONCE))  # what is made once and kept
        time.sleep(1)
        before = snapshot(place)
        begun = time.monotonic()
        _at_once(storm, range(cycles))
        took = time.monotonic() - begun
        left = _settled(lambda: beyond(place, before))
        again = _next_subnets(place)
    for kind in sorted({kind for host in before.values() for kind, _ in host}):
        cells = []
        for host in before:
            was = sum(count for (each, _), count in before[host].items() if each == kind)
            remains = [f"{name} ({n})" for (each, name), n in left[host].items() if each == kind]
            cells.append(f"{was}, {len(remains)}{': ' + '; '.join(remains[:3]) if remains else ''}")
        bar.rows.append((kind, *cells))
    total = sum(each.total() for each in left.values())
    bar.check(total == 0, f"{total} left after {cycles} cycles in {took:.0f} s")
    bar.check(again == free, f"the next networks get the subnets {again}, as before the storm ({free})")
    bar.notes.append(
        f"{AT_ONCE} at once, by turns: an overlay with a service that publishes a port, a bridge with a "
        "container that does, a container that joins another network, leaves it and joins it. All tasks are "
        f"also on {TIGHT}, and those containers on {TIGHT_LOCAL}: too small for addresses that leak. "
        "Descriptors: what the daemons have open; of connections tracked, established ones count."
    )
    return bar


def _settled(look: Callable[[], dict[str, Found]]) -> dict[str, Found]:
    """The last look, once nothing is left or patience is."""
    deadline = time.monotonic() + PATIENCE / 2
    while any((left := look()).values()) and time.monotonic() < deadline:
        time.sleep(1)
    return left


def _next_subnets(place: Playground) -> dict[str, str]:
    """Which subnets new networks would get."""
    found, engine = {}, place.engine("host1")
    for driver in ("overlay", "bridge"):
        id = engine.post("/networks/create", {"Name": f"probe-{driver}", "Driver": driver})["Id"]
        found[driver] = engine.get(f"/networks/{id}")["IPAM"]["Config"][0]["Subnet"]
        engine.delete(f"/networks/{id}")
    return found
