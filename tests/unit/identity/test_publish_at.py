"""Labels that say where published ports are open."""

import pytest

from cluster.errors import InvalidArgument
from cluster.publish_at import (
    Policy,
    check_ports_published,
    check_publish_labels,
    places,
    policy,
    proxy_protocol,
)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({}, ()),
        (None, ()),
        ({"shoal.publish": "eth0"}, ("eth0",)),
        ({"shoal.publish": "eth0", "shoal.publish.80": "10.0.0.1, 10.1.0.0/16"}, ("10.0.0.1", "10.1.0.0/16")),
        ({"shoal.publish.80": "eth0", "shoal.publish.80/tcp": "lo"}, ("lo",)),
        ({"shoal.publish.80/udp": "lo", "shoal.publish.81": "lo"}, ()),
        ({"shoal.publish": "fd00::1,2001:db8::/32"}, ("fd00::1", "2001:db8::/32")),
        ({"shoal.publish.policy": "local"}, ()),
    ],
)
def test_the_most_exact_label_counts(labels: dict[str, str] | None, found: tuple[str, ...]) -> None:
    assert places(labels, "tcp", 80) == found
    check_publish_labels(labels)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shoal.publish.x", "eth0"),
        ("shoal.publish.0", "eth0"),
        ("shoal.publish.70000", "eth0"),
        ("shoal.publish.80/icmp", "eth0"),
        ("shoal.publish", ""),
        ("shoal.publish", "10.0.0"),
        ("shoal.publish", "10.0.0.1/33"),
        ("shoal.publish", "a-name-that-is-too-long"),
        ("shoal.publish", '"; flush ruleset'),
        ("shoal.publish", ",".join(["lo"] * 33)),
        ("shoal.publish", "fd00::1/129"),
        ("shoal.publish", "fe80::1%x }\nflush ruleset\n#"),
        ("shoal.publish", "10.0.0.0/255.0.0.0"),
        ("shoal.publish.policy", "elsewhere"),
        ("shoal.publish.proxy-protocol", "v3"),
        ("shoal.publish.80.policy", "local"),
        ("shoal.publish.policy.80/icmp", "local"),
    ],
)
def test_labels_that_mean_nothing_are_refused(key: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=r"label shoal\.publish"):
        check_publish_labels({key: value})


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (None, Policy.ANY),
        ({"shoal.publish.policy": "local-first"}, Policy.LOCAL_FIRST),
        ({"shoal.publish.policy": "local-first", "shoal.publish.policy.80": "local"}, Policy.LOCAL),
        (
            {"shoal.publish.policy.80": "local", "shoal.publish.policy.80/tcp": " local-first "},
            Policy.LOCAL_FIRST,
        ),
        ({"shoal.publish.policy.81": "local", "shoal.publish": "lo"}, Policy.ANY),
        ({"shoal.publish.policy.80": ""}, Policy.ANY),
    ],
)
def test_the_most_exact_policy_counts(labels: dict[str, str] | None, found: Policy) -> None:
    assert policy(labels, "tcp", 80) is found
    check_publish_labels(labels)


def test_the_proxy_protocol_is_for_tcp() -> None:
    labels = {"shoal.publish.proxy-protocol": "v2", "shoal.publish.proxy-protocol.81/tcp": "v1"}
    check_publish_labels(labels)
    assert proxy_protocol(labels, "tcp", 80) == "v2"
    assert proxy_protocol(labels, "tcp", 81) == "v1"
    assert proxy_protocol(labels, "udp", 80) == proxy_protocol(None, "tcp", 80) == ""


PUBLISHED = {("tcp", 8080), ("udp", 53)}


@pytest.mark.parametrize(
    "key",
    [
        "shoal.publish.policy.9999",
        "shoal.publish.9999",
        "shoal.publish.8080/udp",
        "shoal.publish.proxy-protocol.53/tcp",
    ],
)
def test_a_label_of_a_port_that_is_not_published_is_refused(key: str) -> None:
    with pytest.raises(InvalidArgument, match=f"label {key}: .* not publish .*53/udp, 8080/tcp"):
        check_ports_published({key: "local"}, {}, PUBLISHED)
    with pytest.raises(InvalidArgument, match="it publishes none"):
        check_ports_published({key: "local"}, None, ())
    check_ports_published({key: "local"}, {key: ""}, PUBLISHED)  # it was there while the port was
    check_ports_published({key: "local"}, {}, {*PUBLISHED, ("tcp", 0)})  # whose number is not known yet


def test_labels_of_published_ports_and_of_all_ports_are_taken() -> None:
    labels = (
        "shoal.publish",
        "shoal.publish.policy",
        "shoal.publish.policy.8080",
        "shoal.publish.53/udp",
        "a",
    )
    check_ports_published(dict.fromkeys(labels, "x"), None, PUBLISHED)
    check_ports_published({"shoal.publish.policy": "local"}, None, ())
