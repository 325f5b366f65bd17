"""A member that flaps, sleeps or comes back: the cluster must not notice, and above all elect nobody."""

import os
import signal
import time
from collections.abc import Callable

from bench.cluster import SHOAL, Options, host_processes, playground
from bench.members import Members, running
from bench.report import Bar
from shoal.playground.playground import Playground

MANAGERS = 3
PORT = 7100
TIMES = 10
AWAY_SECONDS = 2.5
"""Several election timeouts."""
BACK_SECONDS = 1.0
PAYLOAD = 200
STALL = 0.2


class Disturbances:
    """What is done to one follower, again and again."""

    def __init__(self, place: Playground, cluster: Members) -> None:
        self._place, self._cluster = place, cluster
        self._leader = cluster.leader()
        self.follower = next(member for member in cluster.all if member is not self._leader)
        self._host = _host(self.follower.node_id)

    @property
    def all(self) -> dict[str, Callable[[], None]]:
        """By name."""
        leaders_host = _host(self._leader.node_id)
        return {
            "cut off from all": lambda: self._cut([], one_way=False),
            "cut off from the leader only": lambda: self._cut([leaders_host], one_way=False),
            "hears, is not heard": lambda: self._cut([], one_way=True),
            "is heard, hears nobody": self._deafen,
            "stopped (SIGSTOP) and continued": self._pause,
            "killed (-9) and started again": self._restart,
        }

    def measure(self, disturb: Callable[[], None], times: int) -> tuple[int, float]:
        """Do it so many times under writes: how far the term rose, and the slowest commit in seconds."""
        term = self._leader.ask("status")["term"]
        self._leader.ask("load", size=PAYLOAD)
        for _ in range(times):
            disturb()
            time.sleep(BACK_SECONDS)
            index = self._leader.ask("status")["applied"]
            self.follower.ask("applied", index=index)
        timeline = self._leader.ask("unload")["timeline"]
        status = self._leader.ask("status")
        lost = status["leader"] != self._leader.node_id
        return status["term"] - term + lost, max(taken for _, taken in timeline)

    def _cut(self, others: list[str], *, one_way: bool) -> None:
        self._place.partition(self._host, others, one_way=one_way)
        time.sleep(AWAY_SECONDS)
        self._place.heal()

    def _deafen(self) -> None:
        for host in self._place.hosts():
            if host.name != self._host:
                self._place.partition(host.name, [self._host], one_way=True)
        time.sleep(AWAY_SECONDS)
        self._place.heal()

    def _pause(self) -> None:
        (pid,) = _pids(self._place, self._host)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(AWAY_SECONDS)
        os.kill(pid, signal.SIGCONT)
        self.follower.process.send_signal(signal.SIGCONT)  # nsenter stops along with its child

    def _restart(self) -> None:
        (pid,) = _pids(self._place, self._host)
        os.kill(pid, signal.SIGKILL)
        self.follower.process.wait()
        self.follower.start()


def _host(node_id: str) -> str:
    return node_id.replace("m", "host")


def _pids(place: Playground, host: str) -> list[int]:
    return [
        pid
        for pid, line in host_processes(place, host).items()
        if "bench.raft_member" in line and "setpriv" not in line
    ]


def run(options: Options) -> Bar:
    """Measure."""
    bar = Bar(
        "10. Members that flap, sleep and return",
        f"each {TIMES} times: no election, and commits go on",
        ("what happens to a follower", "times", "rise of the term", "slowest commit"),
    )
    rise, count = 0, 0
    with playground(SHOAL, MANAGERS, 0) as place:

        def start(node_id: str, command: list[str], given: dict[str, object]) -> object:
            return place.popen(_host(node_id), command, **given)

        def address(node_id: str) -> str:
            return f"{place.host(_host(node_id)).address}:{PORT}"

        directory = place.layout.directory / "members"
        directory.mkdir()
        with running(Members(directory, {}, start, address), MANAGERS) as cluster:
            disturbances = Disturbances(place, cluster)
            for name, disturb in disturbances.all.items():
                times = options.rounds(TIMES)
                risen, slowest = disturbances.measure(disturb, times)
                bar.rows.append((name, str(times), str(risen), f"{1000 * slowest:.0f} ms"))
                rise, count = rise + risen, count + times
    bar.check(rise == 0, f"{rise} elections in {count} times")
    bar.notes.append(
        f"{MANAGERS} processes in playground hosts, on a real network (partitions by nftables, no end is "
        f"told); away for {AWAY_SECONDS} s each time, back for {BACK_SECONDS:.0f} s, under constant writes "
        "through the leader."
    )
    return bar
