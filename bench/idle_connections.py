"""Whether a TCP connection that says nothing for two hours lives, in a clock that runs faster.

Nothing can make the kernel's clock run faster, but all that could end an idle connection is a timeout that
can be set: of connection tracking, of neighbours, of what bridges learned. All of them, in every namespace on
the way, are divided by the same number. What the true timeouts are is read before.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from bench.cluster import create, running, sleepers, wait_running
from bench.net_tools import Spot, container_spot, host_spot
from bench.report import Bar
from shoal.playground.layout import CLIENT, UNDERLAY
from shoal.playground.playground import Playground

HOURS = 2
SECONDS = 20.0
PORT, TARGET = 8090, 82
_ECHO = f"""
import socket, threading
def echo(connection):
    while data := connection.recv(99):
        connection.sendall(data)
server = socket.create_server(("", {TARGET}))
print("ready", flush=True)
while True:
    threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
"""
_HOLD = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as kept:
    def say(word):
        kept.sendall(word)
        assert kept.recv(99) == word
    say(b"first")
    print("held", flush=True)
    sys.stdin.readline()
    say(b"again")
    print("lives", flush=True)
"""
_SHRINK = (
    "for each in /proc/sys/net/netfilter/nf_conntrack_*timeout*; do v=$(cat $each); "
    "if [ $v -ge FACTOR ]; then echo $((v / FACTOR)) > $each; "
    "else case $each in *established|*stream) echo 1 > $each;; esac; fi; done 2> /dev/null; "
    "for each in /proc/sys/net/ipv4/neigh/*/gc_stale_time; do echo 1 > $each; done; "
    "for each in /proc/sys/net/ipv4/neigh/*/base_reachable_time_ms; do echo 100 > $each; done; "
    "for each in /sys/class/net/*/bridge; do "
    "[ ! -e $each ] || echo $((30000 / FACTOR + 1)) > $each/ageing_time; done"
)


def measure(place: Playground, seconds: float = SECONDS) -> dict[str, Any]:
    """Hold a connection through the mesh and one through a service's address; what became of them.

    Args: seconds: how long the two hours are.
    """
    shrink = _SHRINK.replace("FACTOR", str(round(HOURS * 3600 / seconds)))
    engine = place.engine("host1")
    network = engine.post("/networks/create", {"Name": "idle", "Driver": "overlay"})["Id"]
    spots, addresses = {}, {}
    for name, host in (("server", "host2"), ("asker", "host1")):
        spec = sleepers(f"idle-{name}", 1, [network], [f"node.hostname=={host}"])
        if name == "server":
            wanted = {
                "TargetPort": TARGET,
                "PublishedPort": PORT,
                "Protocol": "tcp",
                "PublishMode": "ingress",
            }
            spec["EndpointSpec"] = {"Ports": [wanted]}
        id = create(engine, spec)
        wait_running(engine, id, 1)
        (task,) = running(engine, id)
        spots[name] = container_spot(place, host, task["Status"]["ContainerStatus"]["ContainerID"])
        virtual = engine.get(f"/services/{id}")["Endpoint"]["VirtualIPs"]
        addresses[name] = next(each["Addr"] for each in virtual if each["NetworkID"] == network).split("/")[0]
    ways = {
        "mesh": (host_spot(place, CLIENT), place.host("host1").address, PORT),
        "service's address": (spots["asker"], addresses["server"], TARGET),
    }
    hosts = {name: host_spot(place, name) for name in ("host1", "host2", UNDERLAY, CLIENT)}
    found: dict[str, Any] = {"lives": {}}
    with ExitStack() as stack:
        server = _python(stack, spots["server"], _ECHO)
        _line(server, "ready")
        held = {way: _python(stack, spot, _HOLD, to, str(port)) for way, (spot, to, port) in ways.items()}
        for process in held.values():
            _line(process, "held")
        found["timeouts"] = list(_timeouts(hosts | spots))
        _finish(held)
        for spot in (hosts | spots).values():
            spot.run("unshare", "--mount", "sh", "-c", f"mount -t sysfs none /sys; {shrink}")
        held = {way: _python(stack, spot, _HOLD, to, str(port)) for way, (spot, to, port) in ways.items()}
        for process in held.values():
            _line(process, "held")
        found["shrunk"] = list(_timeouts(hosts | spots))
        time.sleep(seconds)
        found["lives"] = _finish(held)
    return found


def _python(stack: ExitStack, spot: Spot, program: str, *words: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        spot.command([sys.executable, "-c", program, *words]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.communicate)
    stack.callback(process.kill)
    return process


def _line(process: "subprocess.Popen[str]", wanted: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line == wanted, f"{wanted!r} expected, not {line!r}"


def _finish(held: dict[str, "subprocess.Popen[str]"]) -> dict[str, bool]:
    """Use the connections once more: which of them live."""
    lives = {}
    for way, process in held.items():
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        lives[way] = process.stdout.readline().strip() == "lives"
    return lives


def _timeouts(spots: dict[str, Spot]) -> Iterator[tuple[str, int]]:
    """Seconds that connection tracking has left for established connections to the server, by place."""
    for name, spot in spots.items():
        listed = spot.run("conntrack", "-L", "-p", "tcp", "--state", "ESTABLISHED")
        for line in listed.splitlines():
            if re.search(rf"dport=({PORT}|{TARGET}) ", line):
                yield name, int(line.split()[2])


def show(bar: Bar, found: dict[str, Any]) -> None:
    """Judge, and show the figures."""
    timeouts = [seconds for _, seconds in found["timeouts"]]
    least = min(timeouts, default=0)
    where = sorted({name for name, _ in found["timeouts"]})
    bar.check(
        least > HOURS * 3600,
        f"an idle connection is remembered for {least / 3600:.0f} h at least ({', '.join(where)})",
    )
    for way, lives in found["lives"].items():
        bar.check(
            lives,
            f"a connection through the {way} that idled for {HOURS} h {'lives' if lives else 'is dead'}",
        )
    shrunk = min((seconds for _, seconds in found["shrunk"]), default=0)
    bar.notes.append(
        f"Two hours: {SECONDS:.0f} s with every timeout on the way (connection tracking, "
        f"neighbours, bridges) divided by {HOURS * 3600 / SECONDS:.0f}, in the hosts, the "
        f"containers, the client and between them; connection tracking then forgets after {shrunk} s."
    )
