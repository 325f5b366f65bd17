"""wrk, iperf3 and nginx of the distribution's packages, run in a container's or a host's network.

Both ends of every compared way are the same programs, started in the same manner. CPU time is that of the
processes at both ends, as the scheduler counts it: on veth devices a packet's whole way, forwarding and
rules included, runs in the process that sends or receives (a kernel with CONFIG_IRQ_TIME_ACCOUNTING would
leave it out), so it hardly depends on what else runs on the machine.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peer import CACHE
from cluster.errors import ShoalError
from shoal.demo.packages import download, unpack
from shoal.playground import processes
from shoal.playground.playground import Playground

PACKAGES = (
    *("nginx", "libpcre2-8-0", "libssl3t64|libssl3", "zlib1g", "libcrypt1"),
    *("wrk", "libluajit-5.1-2", "iperf3", "libiperf0", "libsctp1"),
)
HTTP_PORT, STREAM_PORT = 81, 5201
CONNECTIONS = 32
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib")
_CONFIG = """\
daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  server {
    listen PORT backlog=4096;
    location / {
      default_type text/plain;
      ONLY
      return 200 "$remote_addr\\n";
    }
  }
}
"""


@dataclass(frozen=True)
class Sample:
    """One short run over one way."""

    rate: float
    """Operations a second (bits a second of streams)."""
    cpu: float
    """CPU time of both ends: microseconds for an operation (milliseconds for a gigabyte)."""
    failed: int = 0


@dataclass(frozen=True)
class Spot:
    """A place to run programs in: the network and the cgroups of a process."""

    pid: int
    namespace: str = ""
    """The path of another network namespace than the process's own."""
    cgroup: str = ""
    """The directory of another cgroup (version 2) than the process's own."""

    @property
    def network(self) -> str:
        """The path of its network namespace."""
        return self.namespace or f"/proc/{self.pid}/ns/net"

    def command(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` there, as the same process."""
        files = [f"{self.cgroup}/cgroup.procs"] if self.cgroup else _cgroup_files(self.pid)
        script = "".join(f"echo $$ > {each}; " for each in files)
        enter = f'exec nsenter --net={self.network} -- "$@"'
        return ["sh", "-c", script + enter, "sh", *words]

    def translated(self, address: str) -> bool:
        """Whether rules lead connections from here to an address elsewhere, as tracking tells; those
        that connect() leads are not."""
        return f"dst={address} " in self.run("conntrack", "-L", "-p", "tcp")

    def run(self, *words: str) -> str:
        """Run a command to its end; its output. Raises ShoalError."""
        done = subprocess.run(self.command(words), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ShoalError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def _cgroup_files(pid: int) -> Iterator[str]:
    """cgroup.procs of a process in every hierarchy."""
    mounts: dict[str, str] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            mounts.setdefault("", where)
        elif kind == "cgroup":
            for word in options.split(","):
                mounts.setdefault(word, where)
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        mounted = mounts.get(controllers.partition(",")[0])
        if mounted is not None:
            yield f"{mounted}{path.rstrip('/')}/cgroup.procs"


def host_spot(place: Playground, name: str) -> Spot:
    """A host's own network (or the client's, or the underlay's)."""
    return Spot(processes.inits(place.layout.directory)[name])


def container_spot(place: Playground, host: str, container: str) -> Spot:
    """A container's network and cgroup. Raises ShoalError if it does not run."""
    wanted = str(place.engine(host).get(f"/containers/{container}/json")["State"]["Pid"])
    inside = f"/{place.layout.cgroup}/{host}"
    for each in Path("/proc").glob("[0-9]*"):
        try:
            ids = re.search(r"^NSpid:(.*)$", (each / "status").read_text(), re.MULTILINE)
            if ids and ids[1].split()[1:2] == [wanted] and inside in (each / "cgroup").read_text():
                return Spot(int(each.name))
        except OSError:
            continue  # it has ended
    raise ShoalError(f"container {container} of {host} does not run")


def cpu_ns(pid: int) -> int:
    """The CPU time that a process has taken, all its threads, in nanoseconds."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat"))


class Tools:
    """The programs, and the servers that were started; see `unpacked`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[subprocess.Popen[bytes]] = []
        libraries = ":".join(str(folder / each) for each in _LIBRARIES)
        self._environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": libraries}

    def _serve(self, spot: Spot, words: Sequence[str], port: int) -> int:
        process = subprocess.Popen(
            spot.command(words), env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._servers.append(process)
        deadline = time.monotonic() + 10
        while True:
            tables = (Path(f"/proc/{process.pid}/net/{each}").read_text() for each in ("tcp", "tcp6"))
            if any(f":{port:04X} " in row and " 0A " in row for t in tables for row in t.splitlines()):
                return process.pid
            if process.poll() is not None or time.monotonic() > deadline:
                raise ShoalError(f"{words[0]} does not serve on port {port}")
            time.sleep(0.02)

    def web(self, spot: Spot, port: int = HTTP_PORT, only: str = "") -> int:
        """nginx, one process; its id. Args: only: the one client's address that gets a 200."""
        scratch = Path(tempfile.mkdtemp(dir=self._folder))
        refuse = f"if ($remote_addr != {only}) {{ return 403; }}" if only else ""
        text = _CONFIG.replace("FOLDER", str(scratch)).replace("PORT", str(port)).replace("ONLY", refuse)
        (scratch / "nginx.conf").write_text(f"user root;\n{text}")
        return self._serve(
            spot, [f"{self._folder}/usr/sbin/nginx", "-p", str(scratch), "-c", f"{scratch}/nginx.conf"], port
        )

    def sink(self, spot: Spot) -> int:
        """An iperf3 server; its process id."""
        return self._serve(
            spot, [f"{self._folder}/usr/bin/iperf3", "-s", "-p", str(STREAM_PORT)], STREAM_PORT
        )

    def _client(self, spot: Spot, words: Sequence[str], servers: Sequence[int]) -> tuple[str, int]:
        """The output of a client program, and the CPU time of it and its servers in nanoseconds."""
        before = sum(map(cpu_ns, servers))
        process = subprocess.Popen(
            spot.command(words), env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise ShoalError(f"{words[0]}: {output.strip()}")
        return output, sum(map(cpu_ns, servers)) - before + round((usage.ru_utime + usage.ru_stime) * 1e9)

    def requests(
        self, spot: Spot, address: str, port: int, *servers: int, close: bool, seconds: int = 1
    ) -> Sample:
        """Requests over HTTP: on 32 connections kept alive, or each on one of its own.

        Args: servers: the processes that answer.
        """
        words = [f"{self._folder}/usr/bin/wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        words += ["-H", "Connection: close"] if close else []
        output, cpu = self._client(spot, [*words, f"http://{address}:{port}/"], servers)
        count = re.search(r"(\d+) requests in ([0-9.]+)s", output)
        if count is None or int(count[1]) == 0:
            raise ShoalError(f"wrk got no answers from {address}:{port}: {output.strip()}")
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        failed = (int(wrong[1]) if wrong else 0) + (sum(map(int, errors.groups())) if errors else 0)
        return Sample(int(count[1]) / float(count[2]), cpu / 1e3 / int(count[1]), failed)

    def stream(self, spot: Spot, address: str, server: int, seconds: int = 1) -> Sample:
        """One TCP stream of bytes."""
        words = [f"{self._folder}/usr/bin/iperf3", "-c", address, "-p", str(STREAM_PORT)]
        output, cpu = self._client(spot, [*words, "-t", str(seconds), "-J"], [server])
        received = json.loads(output)["end"]["sum_received"]
        return Sample(received["bits_per_second"], cpu / 1e6 / (received["bytes"] / 1e9))

    def close(self) -> None:
        """End the servers."""
        for process in self._servers:
            process.kill()
        for process in self._servers:
            process.wait()


@contextmanager
def unpacked() -> Iterator[Tools]:
    """The programs in a folder that goes afterwards. Raises Unavailable when they can't be had."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-bench-tools-"))
    folder.chmod(0o755)
    tools = Tools(folder)
    try:
        unpack(download(PACKAGES, CACHE), folder)
        yield tools
    finally:
        tools.close()
        shutil.rmtree(folder)


class Contest:
    """Ways that are measured in turn, in short rounds, so that what else runs meets all of them alike."""

    def __init__(self, ways: dict[str, Callable[[], Sample]]) -> None:
        self.ways = ways
        self.samples: dict[str, list[Sample]] = {name: [] for name in ways}

    def round(self) -> None:
        """One sample of each, in the other direction than the last time."""
        names = list(self.ways)
        if len(self.samples[names[0]]) % 2:
            names.reverse()
        for name in names:
            self.samples[name].append(self.ways[name]())

    def rate(self, name: str) -> float:
        """The best rate."""
        return max(each.rate for each in self.samples[name])

    def cpu(self, name: str) -> float:
        """The median of CPU for an operation."""
        return statistics.median(each.cpu for each in self.samples[name])

    def failed(self, name: str) -> int:
        """All that went wrong."""
        return sum(each.failed for each in self.samples[name])

    def rates(self, name: str, against: str) -> float:
        """Best rate over best rate."""
        return self.rate(name) / self.rate(against)

    def cpus(self, name: str, against: str) -> float:
        """CPU for an operation over the other's: the median of the rounds' quotients."""
        pairs = zip(self.samples[name], self.samples[against], strict=True)
        return statistics.median(one.cpu / other.cpu for one, other in pairs)
