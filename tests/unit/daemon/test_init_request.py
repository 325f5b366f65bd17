"""What `swarm init` refuses before anything is founded."""

import msgspec
import pytest

from cluster.errors import InvalidArgument
from cluster.spec import CAConfig, ClusterSpec, EncryptionConfig
from cluster.states import Availability
from manager.settings import Founding
from shoal.daemon.swarm_requests import InitRequest, JoinRequest, addresses

REFUSED = [
    (InitRequest(spec=ClusterSpec(name="mine")), 'swarm spec must be named "default"'),
    (InitRequest(spec=ClusterSpec(ca_config=CAConfig(node_cert_expiry=1))), "minimum certificate expiry"),
    (InitRequest(spec=ClusterSpec(labels={"": "x"})), "the key must not be empty"),
    (InitRequest(availability="busy"), "invalid availability"),
    (InitRequest(data_path_port=80), "data path port must be in range 1024-49151"),
    (InitRequest(default_addr_pool=["10.20.0.0"], subnet_size=33), "subnet size must be from 1 to 29"),
    (InitRequest(subnet_size=30), "subnet size must be from 1 to 29"),
    (InitRequest(default_addr_pool=["ten"]), "invalid default address pool 'ten'"),
    (InitRequest(default_addr_pool=["10.20.0.1/16"]), "has host bits set"),
    (InitRequest(default_addr_pool=["fd00::/64"]), "give an IPv4 network"),
    (InitRequest(default_addr_pool=["10.20.0.0/16", "10.20.5.0/24"]), "overlap"),
    (InitRequest(default_addr_pool=["10.20.0.0/26"]), "no subnet of size /24 fits"),
]


@pytest.mark.parametrize(("request_", "message"), REFUSED)
def test_refused_with_a_reason(request_: InitRequest, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        request_.check()


@pytest.mark.parametrize(
    ("request_", "locked"),
    [
        (InitRequest(), False),
        (InitRequest(auto_lock_managers=True), True),
        (InitRequest(spec=ClusterSpec(encryption_config=EncryptionConfig(auto_lock_managers=True))), True),
    ],
)
def test_autolock_may_be_asked_for_in_two_places(request_: InitRequest, locked: bool) -> None:
    request_.check()
    told = msgspec.json.decode(request_.founding(""), type=Founding)
    assert (told.spec.encryption_config or EncryptionConfig()).auto_lock_managers is locked
    assert request_.autolock is locked


def test_what_the_docker_cli_sends_is_accepted() -> None:
    InitRequest().check()
    InitRequest(
        spec=ClusterSpec(), subnet_size=24, availability="active", default_addr_pool=[], data_path_port=0
    ).check()
    InitRequest(
        default_addr_pool=["10.20.0.0/16", "10.30.0.0/16"], subnet_size=26, data_path_port=7789
    ).check()


def test_the_manager_understands_what_it_is_told_to_found() -> None:
    request = InitRequest(
        availability="drain", default_addr_pool=["10.20.0.0/16"], subnet_size=26, data_path_port=7789
    )
    told = msgspec.json.decode(request.founding("10.9.0.1"), type=Founding)
    assert told.availability is Availability.DRAIN
    assert told.default_addr_pool == ("10.20.0.0/16",)
    assert (told.subnet_size, told.data_path_port, told.data_path_addr) == (26, 7789, "10.9.0.1")
    assert msgspec.json.decode(InitRequest().founding(""), type=Founding) == Founding()


async def test_this_node_s_addresses_are_found_while_the_loop_runs() -> None:
    remote = JoinRequest(remote_addrs=["127.0.0.1:2377"])
    assert await addresses(remote) == ("0.0.0.0:2377", "127.0.0.1:2377", "127.0.0.1", False)
    given = InitRequest(
        listen_addr="127.0.0.1:9000", advertise_addr="192.0.2.7", data_path_addr="192.0.2.8:1"
    )
    assert await addresses(given) == ("127.0.0.1:9000", "192.0.2.7:9000", "192.0.2.8", False)
    assert await addresses(InitRequest(listen_addr="127.0.0.1")) == (
        "127.0.0.1:2377",
        "127.0.0.1:2377",
        "127.0.0.1",
        False,
    )
    with pytest.raises(InvalidArgument, match="use an IP address or the name of a network interface"):
        await addresses(InitRequest(advertise_addr="no-such-interface"))
