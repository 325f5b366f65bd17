"""What a container can leave on a host of the playground, and how its daemon is killed."""

import sys

import msgspec

from shoal.playground.supervisor import DaemonStatus
from tests.support.cluster import Cluster, eventually

LOOK = """
import os, pathlib, re, subprocess

def output(*command):
    return subprocess.check_output(command, text=True).splitlines()

for line in output("ip", "-o", "link"):
    print("device", re.match(r"[0-9]+: ([^:@]+)", line)[1])
for line in output("ip", "-o", "addr"):
    print("address", *line.split()[1:4])
for line in output("ip", "neigh", "show", "nud", "permanent"):
    print("neighbour", line.strip())
for line in output("nft", "--stateless", "list", "ruleset"):
    print("rule", line.strip())
for line in pathlib.Path("/proc/DAEMON/mountinfo").read_text().splitlines():
    print("mount", line.split()[4])
for top in ("/run/shoal/bundles", "/run/shoal/containers", "/run/shoal/network", "DATA/containers"):
    for here, directories, files in os.walk(top):
        for name in directories + files:
            print("file", os.path.join(here, name))
for here, directories, _ in os.walk("/sys/fs/cgroup"):
    print(*(f"cgroup {name}" for name in directories if re.fullmatch("[0-9a-f]{64}", name)), sep="\\n")
namespaces = set()
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (process / "cmdline").read_bytes().decode().split("\\0")
        namespaces.add(os.stat(process / "ns/net").st_ino)
    except OSError:
        continue
    if words[0].endswith(("conmon", "crun")) or "sleep" in words[0]:
        print("process", process.name, *words[:1])
print("namespaces", len(namespaces))
"""


def remains(cluster: Cluster, host: str) -> set[str]:
    """All that a container can leave on a host, as words that say what it is."""
    data = str(cluster.playground.host(host).socket.parent / "data")
    script = LOOK.replace("DATA", data).replace("DAEMON", str(daemon_pid(cluster, host)))
    done = cluster.playground.run(host, [sys.executable, "-c", script], 30)
    assert done.returncode == 0, done.stderr
    return {line for line in done.stdout.splitlines() if line}


def daemon_pid(cluster: Cluster, host: str) -> int:
    """The daemon's process in its host; 0 when it does not run."""
    path = cluster.playground.host(host).socket.parent / "daemon.status"
    return msgspec.json.decode(path.read_bytes(), type=DaemonStatus).pid


def end_daemon(cluster: Cluster, host: str) -> None:
    """SIGKILL: no handler runs, nothing is written any more."""
    cluster.playground.run(host, ["kill", "-KILL", str(daemon_pid(cluster, host))], 10)
    eventually("the daemon is dead", lambda: not daemon_pid(cluster, host))
