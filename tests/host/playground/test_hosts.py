"""What a host of the playground is like from inside."""

import subprocess
from pathlib import Path

import pytest

from cluster.errors import Conflict, NotFound
from shoal.playground import cgroups
from shoal.playground.playground import Playground

pytestmark = pytest.mark.host

_PROBE = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(float(sys.argv[2]))
s.connect((sys.argv[1], 9)); s.send(b"x")
try: s.recv(1)
except ConnectionRefusedError: print("reached")
except TimeoutError: print("lost")
"""


def reach(place: Playground, sender: str, receiver: str, seconds: float = 0.3) -> str:
    """`reached` when a datagram gets there and its ICMP answer comes back, else `lost`."""
    done = place.run(sender, ["python3", "-c", _PROBE, receiver, str(seconds)])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_each_host_has_its_own_name_network_and_processes(shared: Playground) -> None:
    for host in shared.hosts():
        out = shared.run(
            host.name, ["sh", "-c", "hostname; cat /etc/hostname; ls /sys/class/net; ls /proc"]
        ).stdout
        assert out.splitlines()[:2] == [host.name, host.name]
        assert "eth0" in out.split()
        assert len([word for word in out.split() if word.isdigit()]) < 10  # not the machine's processes


def test_hosts_and_client_reach_each_other_by_name(shared: Playground) -> None:
    assert reach(shared, "host1", "host3", 5) == "reached"
    assert reach(shared, "client", "host2", 5) == "reached"
    assert reach(shared, "host2", "registry", 5) == "reached"


def test_the_client_is_outside_the_cluster_and_keeps_its_address(shared: Playground) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5353));"
        "print('bound', flush=True); s.settimeout(10); print(s.recvfrom(9)[1][0])"
    )
    with shared.popen("host1", ["python3", "-c", script], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "bound\n"
        send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('host1', 5353))"
        shared.run("client", ["python3", "-c", send])
        assert server.stdout.read().strip() == "203.0.113.10"


def test_the_machine_is_not_touched_by_what_a_host_writes(shared: Playground) -> None:
    before = Path("/etc/hostname").read_bytes() if Path("/etc/hostname").exists() else None
    shared.run("host1", ["sh", "-c", "echo x > /etc/shoal-test; echo x > /run/shoal-test; hostname other"])
    assert not Path("/etc/shoal-test").exists()
    assert not Path("/run/shoal-test").exists()
    shared.run("host1", ["hostname", "host1"])
    assert (Path("/etc/hostname").read_bytes() if Path("/etc/hostname").exists() else None) == before
    assert shared.run("host2", ["test", "-e", "/etc/shoal-test"]).returncode == 1


def test_a_host_sees_only_its_own_cgroup_and_can_make_more(shared: Playground) -> None:
    make = """
    set -e
    grep -c shoal-playground /proc/self/cgroup || true
    for d in $(find /sys/fs/cgroup -maxdepth 1 -mindepth 1 -type d -name pids -o -name unified); do
        mkdir -p $d/shoal/one
        ls $d | grep -c shoal-playground || true
    done
    """
    done = shared.run("host1", ["sh", "-c", make])
    assert set(done.stdout.split()) == {"0"}, done.stdout + done.stderr
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return  # the loop above only finds v1 hierarchies
    made = [path / "shoal/one" for path in cgroups.remaining(f"{shared.layout.cgroup}/host1")]
    assert any(path.is_dir() for path in made)


def test_commands_run_in_the_hosts_cgroup(shared: Playground) -> None:
    with shared.popen("host2", ["sh", "-c", "echo on; exec sleep 60"], stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        procs = {
            pid
            for group in cgroups.remaining(f"{shared.layout.cgroup}/host2")
            for file in group.rglob("cgroup.procs")
            for pid in file.read_text().split()
        }
        assert str(sleeper.pid) in procs
        sleeper.terminate()


def test_a_command_ends_with_the_one_who_started_it(shared: Playground) -> None:
    with shared.popen(
        "host2", ["sh", "-c", "echo on; exec sleep 61"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        sleeper.kill()
        assert sleeper.stdout.read() == ""  # end of file: the command in the host has gone too


def test_orphans_are_reaped(shared: Playground) -> None:
    count = """
    for i in 1 2 3 4 5; do (sh -c 'sleep 0.01 &' &); done
    sleep 0.3
    grep -l '^State:.Z' /proc/[0-9]*/status
    """
    assert shared.run("host1", ["sh", "-c", count]).stdout == ""


def test_partition_loses_packets_both_ways_and_heal_ends_it(shared: Playground) -> None:
    assert shared.partition("host1", ["host2"]) == ("host2",)
    assert reach(shared, "host1", "host2") == "lost"
    assert reach(shared, "host2", "host1") == "lost"
    assert reach(shared, "host1", "host3", 5) == "reached"
    assert reach(shared, "client", "host1", 5) == "reached"
    states = {s.host.name: s.cut_from for s in shared.states()}
    assert states == {"host1": ("host2",), "host2": ("host1",), "host3": ()}
    shared.heal()
    assert reach(shared, "host1", "host2", 5) == "reached"


def test_partition_from_all_includes_the_client(shared: Playground) -> None:
    shared.partition("host3")
    assert [reach(shared, sender, "host3") for sender in ("host1", "client")] == ["lost", "lost"]
    assert reach(shared, "host3", "client") == "lost"
    assert reach(shared, "client", "host1", 5) == "reached"
    shared.heal()
    assert reach(shared, "client", "host3", 5) == "reached"


def test_one_way_partition_loses_only_what_the_host_sends(shared: Playground) -> None:
    listen = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5354));"
        "print('bound', flush=True); s.settimeout(float(__import__('sys').argv[1]))\n"
        "try: s.recv(9); print('got')\n"
        "except TimeoutError: print('nothing')"
    )
    send = "import socket as s, sys; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 5354))"

    def one_datagram(sender: str, receiver: str, seconds: float) -> str:
        with shared.popen(
            receiver, ["python3", "-c", listen, str(seconds)], stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            server.stdout.readline()
            shared.run(sender, ["python3", "-c", send, receiver])
            return server.stdout.read().strip()

    assert one_datagram("host1", "host2", 10) == "got"  # and their neighbour entries are warm now
    shared.partition("host1", ["host2"], one_way=True)
    assert one_datagram("host1", "host2", 0.5) == "nothing"
    assert one_datagram("host2", "host1", 10) == "got"
    shared.heal()


def test_unknown_hosts_are_refused_with_the_names_there_are(shared: Playground) -> None:
    with pytest.raises(NotFound, match="it has host1, host2, host3"):
        shared.host("host4")
    with pytest.raises(NotFound, match="choose from"):
        shared.partition("host1", ["host9"])
    with pytest.raises(NotFound):
        shared.command("underlay", ["true"])


def test_restarting_the_daemon_leaves_other_processes_alone(shared: Playground) -> None:
    with shared.popen("host1", ["sh", "-c", "echo on; exec sleep 60"], stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        shared.restart_daemon("host1")
        assert sleeper.poll() is None
        sleeper.terminate()
    assert {s.state for s in shared.states()} == {"running"}


def test_a_stopped_daemon_can_be_started_again(shared: Playground) -> None:
    shared.stop_daemon("host2")
    assert [s.state for s in shared.states()] == ["running", "no daemon", "running"]
    shared.restart_daemon("host2")
    assert [s.state for s in shared.states()] == ["running"] * 3


def test_power_loss_ends_everything_and_start_brings_back_the_disk(shared: Playground) -> None:
    shared.run("host2", ["sh", "-c", f"echo kept > {shared.host('host2').home}/kept; echo lost > /run/lost"])
    shared.kill("host2")
    assert [s.state for s in shared.states()] == ["running", "off", "running"]
    assert reach(shared, "host1", "host2") == "lost"
    with pytest.raises(Conflict, match="is off"):
        shared.kill("host2")
    with pytest.raises(Conflict, match="is off"):
        shared.run("host2", ["true"])
    shared.start("host2")
    with pytest.raises(Conflict, match="is running"):
        shared.start("host2")
    assert reach(shared, "host1", "host2", 5) == "reached"
    assert (shared.host("host2").home / "kept").read_text() == "kept\n"
    assert shared.run("host2", ["test", "-e", "/run/lost"]).returncode == 1


def test_power_loss_sends_no_farewell(shared: Playground) -> None:
    """A peer's TCP connection must not learn of it: no FIN and no RST, as when a plug is pulled."""
    server = (
        "import socket; s = socket.create_server(('', 7000)); print('on', flush=True); c, _ = s.accept();"
        "print('accepted', flush=True); c.recv(1)"
    )
    client = (
        "import socket; s = socket.create_connection(('host2', 7000)); print('connected', flush=True);"
        "s.settimeout(1.0)\n"
        "try: print('farewell', s.recv(1))\n"
        "except TimeoutError: print('silence')"
    )
    with shared.popen("host2", ["python3", "-c", server], stdout=subprocess.PIPE) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        with shared.popen("host1", ["python3", "-c", client], stdout=subprocess.PIPE) as connected:
            assert connected.stdout is not None
            connected.stdout.readline()
            listening.stdout.readline()
            shared.kill("host2")
            assert connected.stdout.read().strip() == "silence"
    shared.start("host2")
