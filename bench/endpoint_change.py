"""Many services on a node: what one endpoint's change costs, and what a new connection does."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import net_tools
from bench.cluster import Options
from bench.net_tools import Contest, Sample, Spot, Tools
from bench.plane_member import APP, CLIENT, ENDPOINTS, FIRST_PORT, INGRESS, TARGET, virtual
from bench.report import Bar
from netplane.bpf.connect import directory_of
from tests.support.network_lab import REPOSITORY, Lab

FEW, MANY = 10, 1000
CHANGES, ROUNDS = 300, 10
MILLISECONDS, CPU = 5.0, 1.1
ADDRESS, PORT = "service's address", "published port"
KINDS = {ADDRESS: [APP], PORT: [INGRESS], "both, as of a task with both": [APP, INGRESS]}
CLIENT_ADDRESS = "192.0.2.99"


class Member:
    """A host whose plane knows so many services."""

    def __init__(self, lab: Lab, address: str, services: int) -> None:
        self.address, self.services = address, services
        self.pid = lab.namespace()
        lab.plug(self.pid, f"{address}/24")
        folder = str(lab.directory / str(services))
        # As on a node: the cgroup of all containers, at which connect() learns the services' addresses.
        group = f"/{lab.directory.name}/{services}"
        command = [sys.executable, "-m", "bench.plane_member", folder, address, str(services), group]
        self._process = lab.spawn(
            lab.inside(self.pid, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        ready = self._read()
        self.first: float = ready.pop("first")
        tasks = directory_of(group) / "tasks"
        tasks.mkdir(parents=True, exist_ok=True)
        self.spots = {
            name: Spot(self.pid, f"/proc/{self.pid}/root{path}", str(tasks)) for name, path in ready.items()
        }

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the plane with {self.services} services died"
        return json.loads(line)

    def ask(self, *words: object) -> Any:
        """Have the plane do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()


@contextmanager
def members(*counts: int) -> Iterator[tuple[Spot, list[Member]]]:
    """A client on the underlay, and hosts."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        lab = Lab(Path(folder))
        try:
            client = lab.namespace()
            lab.plug(client, f"{CLIENT_ADDRESS}/24")
            yield Spot(client), [Member(lab, f"192.0.2.{i}", count) for i, count in enumerate(counts, 1)]
        finally:
            lab.close()
            top = directory_of(f"/{lab.directory.name}")
            for each in sorted((each for each in top.rglob("*") if each.is_dir()), reverse=True):
                each.rmdir()
            top.rmdir()


def takes_effect(tools: Tools, client: Spot, member: Member) -> list[int]:
    """Start the first service's servers, and prove by requests that a change decides who answers; their
    processes."""
    servers = []
    for number in range(ENDPOINTS):
        spot = member.spots[f"task-0-{number}"]
        servers.append(tools.web(spot, TARGET))
    for number in range(1, ENDPOINTS):
        member.ask("serving", number, False)
    idle = [net_tools.cpu_ns(each) for each in servers[1:]]
    for spot, url in urls(client, member):
        for _ in range(20):
            spot.run("curl", "-fsS", "-m", "2", url)
    assert idle == [net_tools.cpu_ns(each) for each in servers[1:]], "an endpoint that is out was asked"
    for number in range(1, ENDPOINTS):
        member.ask("serving", number, True)
    for spot, url in urls(client, member):
        idle = [net_tools.cpu_ns(each) for each in servers]
        for _ in range(ENDPOINTS * 10):
            spot.run("curl", "-fsS", "-m", "2", url)
        now = [net_tools.cpu_ns(each) for each in servers]
        assert all(a > b for a, b in zip(now, idle, strict=True)), "an endpoint that is back was not asked"
    return servers


def urls(client: Spot, member: Member) -> list[tuple[Spot, str]]:
    """The first service's two ways in, and from where."""
    return [
        (member.spots[CLIENT], f"http://{virtual(0)}:{TARGET}/"),
        (client, f"http://{member.address}:{FIRST_PORT}/"),
    ]


def connect(tools: Tools, client: Spot, member: Member, way: str, servers: list[int]) -> Callable[[], Sample]:
    """What takes a sample of new connections to the first service, by either way in."""
    spot, address, port = (
        (member.spots[CLIENT], virtual(0), TARGET) if way == ADDRESS else (client, member.address, FIRST_PORT)
    )
    return partial(tools.requests, spot, address, port, *servers, close=True)


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        f"19. {MANY:,} services of {ENDPOINTS} endpoints on a node",
        f"one endpoint's change is in the kernel within {MILLISECONDS:.0f} ms (p95); a new connection costs "
        f"at most {CPU} of what it does with {FEW} services",
        ("services", "change of", "p50 ms", "p95", "most", "CPU ms for a change"),
    )
    with members(FEW, MANY) as (client, hosts), net_tools.unpacked() as tools:
        client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535")
        servers = {member.services: takes_effect(tools, client, member) for member in hosts}
        for kind, networks in KINDS.items():
            for member in hosts:
                found = member.ask("changes", networks, 20 if options.quick else CHANGES)
                cells = (f"{found[each]:.2f}" for each in ("p50", "p95", "max", "cpu"))
                bar.rows.append((f"{member.services:,}", kind, *cells))
                if member.services == MANY:
                    bar.check(found["p95"] < MILLISECONDS, f"{kind}: p95 {found['p95']:.2f} ms")
        for member in hosts:
            member.spots[CLIENT].run("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535")
        contests = {
            way: Contest(
                {str(m.services): connect(tools, client, m, way, servers[m.services]) for m in hosts}
            )
            for way in (ADDRESS, PORT)
        }
        for _ in range(options.rounds(ROUNDS)):
            for contest in contests.values():
                contest.round()
        led = "rules" if hosts[-1].spots[CLIENT].translated(virtual(0)) else "connect()"
    for way, contest in contests.items():
        ratio = contest.cpus(str(MANY), str(FEW))
        few, many = contest.cpu(str(FEW)), contest.cpu(str(MANY))
        failed = contest.failed(str(FEW)) + contest.failed(str(MANY))
        bar.check(
            ratio <= CPU,
            f"a new connection to a {way}: {ratio:.3f} of its CPU ({many:.1f} against {few:.1f} µs)",
        )
        bar.check(not failed, f"{failed} of them failed")
    bar.notes += [
        f"{ENDPOINTS + 1} sandboxes on the node, each with all services' addresses; each service has an "
        "address on an overlay and a published port. A change takes one endpoint out, or puts it back; "
        "CPU: the daemon's in all, with what it does afterwards. Before the run, requests prove that a "
        "change decides who answers.",
        "All services at once took "
        + ", ".join(f"{member.first * 1000:.0f} ms for {member.services:,}" for member in hosts)
        + f". A service's address is led by {led}. Connections: wrk and nginx, both ends' CPU, in turn.",
    ]
    return bar
