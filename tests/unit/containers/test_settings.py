"""From what a user asks to what the runtime runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument, NotImplementedHere
from cluster.spec import HealthConfig
from tests.fakes.engine import OneImage
from worker.containers import settings
from worker.containers.mounts import wanted_mounts
from worker.containers.networks import asked_for, host_ports
from worker.containers.record import Record
from worker.containers.request import (
    CreateRequest,
    HostConfig,
    LogSettings,
    NetworkingConfig,
    PortBinding,
    RestartPolicy,
    Settings,
    UpdateRequest,
)
from worker.containers.restart import LONGEST_DELAY, STEADY, check_policy, next_delay
from worker.endpoints import EndpointSettings
from worker.images.config import ImageConfig
from worker.runtime.apparmor import UNCONFINED
from worker.runtime.model import ContainerConfig, LogConfig, SeccompMode

IMAGE = ImageConfig(
    entrypoint=("/entry",), cmd=("default",), env=("PATH=/bin", "A=image"), user="www", working_dir="/srv",
    labels={"a": "image", "b": "image"}, exposed_ports=("80/tcp",), volumes=("/data",), stop_signal="INT",
    healthcheck=HealthConfig(test=["CMD", "true"]),
)  # fmt: skip


def config(host: HostConfig, asked: Settings | None = None) -> ContainerConfig:
    """The container of busybox with these settings."""
    host = settings.normalized(host, unified_cgroups=True, default_log=LogConfig())
    asked = settings.completed(asked or Settings(image="busybox"), OneImage().image.config)
    return settings.container_config(
        "c" * 64, "web", OneImage().image, Record(settings=asked, host=host), (), 1
    )


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "args"),
    [
        (None, None, ("/entry", "default")),
        (None, ["x"], ("/entry", "x")),
        (["/own"], None, ("/own",)),
        (["/own"], ["x"], ("/own", "x")),
        ([""], ["x"], ("x",)),
        ("/own", "x", ("/own", "x")),
    ],
)
def test_commands(
    entrypoint: list[str] | str | None, cmd: list[str] | str | None, args: tuple[str, ...]
) -> None:
    found = settings.completed(Settings(entrypoint=entrypoint, cmd=cmd), IMAGE)
    assert (*(found.entrypoint or ()), *(found.cmd or ())) == args


def test_an_images_defaults_and_the_users_own() -> None:
    found = settings.completed(Settings(), IMAGE)
    assert (found.user, found.working_dir, found.stop_signal) == ("www", "/srv", "INT")
    assert found.healthcheck == IMAGE.healthcheck
    own = settings.completed(
        Settings(
            user="root",
            env=["A=own", "PATH", "EMPTY="],
            labels={"a": "own"},
            healthcheck=HealthConfig(retries=9),
            exposed_ports={"81/udp": {}},
        ),
        IMAGE,
    )
    assert own.user == "root"
    assert own.env == ["A=own", "PATH", "EMPTY="]
    assert own.labels == {"a": "own", "b": "image"}
    assert own.healthcheck == HealthConfig(test=["CMD", "true"], retries=9)
    assert set(own.exposed_ports or {}) == {"80/tcp", "81/udp"}


def test_variables_without_a_value_are_not_the_containers() -> None:
    assert config(HostConfig(), Settings(env=["NAMED", "A=1"])).env == ("A=1", "PATH=/bin")


@pytest.mark.parametrize(
    "limits",
    [
        {"memory": 1}, {"memory": 64 << 20, "memory_swap": 1 << 20}, {"memory_swap": 1 << 30},
        {"memory": 64 << 20, "memory_reservation": 65 << 20}, {"memory_swappiness": 101}, {"nano_cpus": -1},
        {"nano_cpus": 1}, {"nano_cpus": 2 * 10**9 + 1},
        {"nano_cpus": 10**9, "cpu_quota": 5000}, {"cpu_period": 1}, {"cpu_quota": 1}, {"blkio_weight": 5},
        {"shm_size": -1}, {"runtime": "kata"}, {"ipc_mode": "mine"}, {"cpu_shares": -1},
    ],
)  # fmt: skip
def test_limits_that_make_no_sense(limits: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        settings.check(Settings(), HostConfig(**limits), 2)  # type: ignore[arg-type]


def test_a_health_check_runs_no_more_often_than_every_millisecond() -> None:
    settings.check(Settings(healthcheck=HealthConfig(test=["CMD", "x"], interval=10**6)), HostConfig(), 2)
    with pytest.raises(InvalidArgument, match="Interval in Healthcheck cannot be less than 1ms"):
        settings.check(Settings(healthcheck=HealthConfig(test=["CMD", "x"], interval=1)), HostConfig(), 2)


@pytest.mark.parametrize(
    "asked",
    [
        {"userns_mode": "remap"}, {"device_requests": [{"Count": 1}]}, {"storage_opt": {"size": "1g"}},
        {"cgroup_parent": "/mine"}, {"blkio_device_read_bps": [{"Path": "/dev/sda", "Rate": 1}]},
    ],
)  # fmt: skip
def test_what_is_not_offered_is_said(asked: dict[str, object]) -> None:
    with pytest.raises(NotImplementedHere, match="does not offer"):
        settings.check(Settings(), HostConfig(**asked), 2)  # type: ignore[arg-type]


def test_security_options() -> None:
    options = ["no-new-privileges", "seccomp=unconfined", "apparmor:mine", "label=disable"]
    found = config(HostConfig(security_opt=options))
    assert found.no_new_privileges
    assert found.seccomp is SeccompMode.UNCONFINED
    assert found.apparmor_profile == "mine"
    # The runtime takes none for the usual one: it must hear that none is wanted.
    assert config(HostConfig(security_opt=["apparmor=unconfined"])).apparmor_profile == UNCONFINED
    custom = config(HostConfig(security_opt=["seccomp={}"]))
    assert (custom.seccomp, custom.seccomp_profile) == (SeccompMode.CUSTOM, "{}")
    assert config(HostConfig(security_opt=["systempaths=unconfined"])).masked_paths == ()
    with pytest.raises(InvalidArgument):
        config(HostConfig(security_opt=["magic"]))


def test_the_daemons_log_driver() -> None:
    def log(asked: LogSettings) -> LogSettings:
        own = LogConfig(driver="local", options={"max-size": "1m"})
        return settings.normalized(
            HostConfig(log_config=asked), unified_cgroups=True, default_log=own
        ).log_config

    assert log(LogSettings()) == LogSettings("local", {"max-size": "1m"})
    assert log(LogSettings("local", {"max-size": "2m"})) == LogSettings("local", {"max-size": "2m"})
    assert log(LogSettings("none")) == LogSettings("none")


def test_changed_limits() -> None:
    host = HostConfig(memory=64 << 20, memory_swap=128 << 20)
    assert settings.changed_limits(host, UpdateRequest()) == host
    assert settings.changed_limits(host, UpdateRequest(memory=32 << 20)).memory_swap == 64 << 20
    fixed = HostConfig(memory=64 << 20, memory_swap=80 << 20)
    with pytest.raises(InvalidArgument, match="already set memoryswap"):
        settings.changed_limits(fixed, UpdateRequest(memory=100 << 20))
    with pytest.raises(InvalidArgument, match="NanoCPUs"):
        settings.changed_limits(HostConfig(nano_cpus=1), UpdateRequest(cpu_quota=5000))


# --- mounts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "source", "target", "read_only"),
    [
        ("/a:/b", "bind", "/a", "/b", False),
        ("/a:/b:ro", "bind", "/a", "/b", True),
        ("/a:/b:rw,rshared", "bind", "/a", "/b", False),
        ("data:/b:nocopy", "volume", "data", "/b", False),
        ("/b", "volume", "", "/b", False),
    ],
)
def test_binds(text: str, kind: str, source: str, target: str, read_only: bool) -> None:
    (mount,) = wanted_mounts(HostConfig(binds=[text]))
    assert (mount.type, mount.source, mount.target, mount.read_only) == (kind, source, target, read_only)


@pytest.mark.parametrize("text", ["", ":", "a:b", "/a:/b:c", "/a:/b:ro:x", "/a:", "/a:/b:ro,bad"])
def test_binds_that_make_no_sense(text: str) -> None:
    with pytest.raises(InvalidArgument):
        wanted_mounts(HostConfig(binds=[text]))


def test_tmpfs() -> None:
    (mount,) = wanted_mounts(HostConfig(tmpfs={"/t": "size=64m,mode=750,ro,noexec,uid=5"}))
    options = mount.tmpfs_options
    assert options is not None
    assert (mount.read_only, options.size_bytes, options.mode) == (True, 64 << 20, 0o750)
    assert options.options == [["noexec"], ["uid", "5"]]
    for bad in ("size=x", "mode=9", "mode="):
        with pytest.raises(InvalidArgument):
            wanted_mounts(HostConfig(tmpfs={"/t": bad}))


# --- networks ------------------------------------------------------------------------------------------


def request(
    mode: str = "", endpoints: dict[str, EndpointSettings] | None = None, **fields: object
) -> CreateRequest:
    networking = NetworkingConfig(endpoints_config=endpoints or {})
    return CreateRequest(  # type: ignore[misc]
        image="busybox", host_config=HostConfig(network_mode=mode), networking_config=networking, **fields
    )  # fmt: skip


def test_the_networks_that_are_asked_for() -> None:
    own = EndpointSettings(aliases=("a",))
    assert list(asked_for(request())) == ["bridge"]
    assert list(asked_for(request("default"))) == ["bridge"]
    assert asked_for(request("back", {"back": own})) == {"back": own}
    assert asked_for(request("", {"back": own})) == {"back": own}
    assert list(asked_for(request("front", {"back": own}))) == ["front", "back"]
    assert asked_for(request("host")) == asked_for(request("none")) == asked_for(request("container:x")) == {}
    with pytest.raises(InvalidArgument, match="hostname"):
        asked_for(request("container:x", hostname="box"))


def ports(**bindings: list[PortBinding]) -> list[tuple[str, int, int, int]]:
    host = HostConfig(
        port_bindings={key.replace("_", "/").lstrip("p"): value for key, value in bindings.items()}
    )
    return [
        (port.protocol, port.published, port.target, count) for port, count in host_ports(Settings(), host)
    ]


def test_ports() -> None:
    assert ports(p80=[PortBinding()]) == [("tcp", 0, 80, 1)]
    assert ports(p80_udp=[PortBinding("127.0.0.1", "53")]) == [("udp", 53, 80, 1)]
    assert ports(p80_tcp=[PortBinding("", "8000-8009")]) == [("tcp", 8000, 80, 10)]
    every = HostConfig(publish_all_ports=True, port_bindings={"80/tcp": [PortBinding(host_port="1")]})
    found = host_ports(Settings(exposed_ports={"80/tcp": {}, "81/udp": {}}), every)
    assert [(port.protocol, port.published, port.target) for port, _ in found] == [
        ("tcp", 1, 80),
        ("udp", 0, 81),
    ]
    for bad in ("x", "9-8", "65536", "-1", "１"):
        with pytest.raises(InvalidArgument, match="invalid port"):
            ports(p80=[PortBinding("", bad)])
    with pytest.raises(InvalidArgument, match="invalid port"):
        ports(p80_icmp=[PortBinding()])
    for bad in ("localhost", "fe80::1%x }\nflush ruleset\n#"):
        with pytest.raises(InvalidArgument, match="invalid IP address"):
            ports(p80_sctp=[PortBinding(bad, "80")])


# --- restart policies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "auto_remove"),
    [("sometimes", 0, False), ("always", 3, False), ("on-failure", -1, False), ("always", 0, True)],
)
def test_policies_that_make_no_sense(name: str, count: int, auto_remove: bool) -> None:
    with pytest.raises(InvalidArgument):
        check_policy(RestartPolicy(name, count), auto_remove=auto_remove)


@given(st.lists(st.integers(0, 2 * STEADY), max_size=30))
def test_delays_never_shrink_but_for_a_steady_life(lives: list[int]) -> None:
    before = 0
    for ran in lives:
        delay = next_delay(before, ran)
        assert 0 < delay <= LONGEST_DELAY
        assert delay >= before or ran > STEADY
        before = delay
