"""Names, addresses and paths of a playground."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument, NotFound
from shoal.playground.layout import (
    CLIENT_ADDRESS,
    CLUSTER_GATEWAY,
    MAX_HOSTS,
    USUAL_DIRECTORY,
    Layout,
    Settings,
    daemon_command,
    default_directory,
    hosts_file,
)


def settings(hosts: int = 3, managers: int = 3, **others: object) -> Settings:
    return Settings(hosts=hosts, managers=managers, daemon=("shoald",), **others)  # type: ignore[arg-type]


def test_hosts_are_numbered_from_one() -> None:
    hosts = Layout(Path("/var/lib/p")).hosts(3)
    assert [(h.name, h.address) for h in hosts] == [
        ("host1", "192.0.2.11"),
        ("host2", "192.0.2.12"),
        ("host3", "192.0.2.13"),
    ]
    assert hosts[0].docker_host == "unix:///var/lib/p/host1/shoal.sock"


@given(st.integers(1, MAX_HOSTS))
def test_every_host_is_in_the_cluster_subnet_and_the_client_is_not(number: int) -> None:
    subnet = ip_network("192.0.2.0/24")
    address = ip_address(Layout(Path("/p")).host(f"host{number}").address)
    assert address in subnet
    assert address not in (ip_address(CLUSTER_GATEWAY), subnet.broadcast_address)
    assert ip_address(CLIENT_ADDRESS) not in subnet


@pytest.mark.parametrize(
    "name", ["", "host", "host0", "host01", "host-1", "client", f"host{MAX_HOSTS + 1}", "host1/.."]
)
def test_other_names_are_no_hosts(name: str) -> None:
    with pytest.raises(NotFound, match="host1, host2"):
        Layout(Path("/p")).host(name)


def test_a_folder_too_long_for_the_socket_is_refused_with_its_excess() -> None:
    fits = "/" + "d" * (107 - len("/host200/shoal.sock") - 1)
    Layout(Path(fits))
    with pytest.raises(InvalidArgument, match="is 1 bytes too long"):
        Layout(Path(fits + "d"))


@pytest.mark.parametrize("folder", ["/run/p", "/etc/p", "/proc/p", "/sys", "/dev/shm/p"])
def test_a_folder_that_hosts_could_not_see_is_refused(folder: str) -> None:
    with pytest.raises(InvalidArgument, match="choose a folder elsewhere"):
        Layout(Path(folder))


@pytest.mark.parametrize(("hosts", "managers"), [(0, 0), (MAX_HOSTS + 1, 0), (3, 4), (3, -1)])
def test_counts_that_make_no_sense_are_refused(hosts: int, managers: int) -> None:
    with pytest.raises(InvalidArgument, match="--"):
        settings(hosts, managers)


def test_the_cgroup_is_found_again_from_the_folder_alone() -> None:
    assert Layout(Path("/p/../a")).cgroup == Layout(Path("/a")).cgroup
    assert Layout(Path("/a")).cgroup != Layout(Path("/b")).cgroup
    assert "/" not in Layout(Path("/a")).cgroup


def test_only_paths_with_a_playgrounds_names_are_owned(tmp_path: Path) -> None:
    for name in ("host1", "host12", "host0", "client", "underlay", "hostile", "notes.txt", "partitions.json"):
        (tmp_path / name).touch()
    owned = {path.name for path in Layout(tmp_path).owned()}
    assert owned == {"host1", "host12", "client", "underlay", "partitions.json"}


def test_every_host_knows_all_the_others_and_the_registry() -> None:
    text = hosts_file("host1", Layout(Path("/p")).hosts(2))
    assert "192.0.2.12 host2" in text
    assert f"{CLIENT_ADDRESS} client registry" in text


def test_the_daemon_gets_dockerds_flags() -> None:
    host = Layout(Path("/p")).host("host1")
    command = daemon_command(settings(insecure_registries=("r:5000",), daemon_args=("--label=a=b",)), host)
    assert command[0] == "shoald"
    assert "--data-root=/p/host1/data" in command
    assert "--host=unix:///p/host1/shoal.sock" in command
    assert "--insecure-registry=r:5000" in command
    assert command[-1] == "--label=a=b"


def test_the_environment_names_the_usual_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_PLAYGROUND_DIR", "/tmp/elsewhere")
    assert default_directory() == Path("/tmp/elsewhere")
    monkeypatch.delenv("SHOAL_PLAYGROUND_DIR")
    assert default_directory() == USUAL_DIRECTORY
