"""What a node says of itself when it opens a session."""

import pytest

from cluster.messages import Hello
from cluster.objects import NodeDescription
from manager.dispatcher.registration import sound


@pytest.mark.parametrize(
    ("address", "data_path", "accepted"),
    [
        ("", "", True),
        ("10.0.0.1:2377", "10.0.0.1", True),
        ("10.0.0.1", "", True),
        ("[2001:db8::1]:2377", "", True),
        ("2001:db8::1", "2001:db8::2", True),
        ("node1:2377", "", False),
        ("fe80::1%x }\nflush ruleset\n#", "", False),
        ("[fe80::1%x }\nflush ruleset\n#]:2377", "", False),
        ("10.0.0.1:2377", "fe80::1%x }\nflush ruleset\n#", False),
        ("10.0.0.1:2377", "1", False),
        ("10.0.0.1:2377", "10.0.0.1/24", False),
        ("10.0.0.1:2377", "x" * 10_000, False),
    ],
)
def test_addresses_that_go_into_other_nodes_kernels(address: str, data_path: str, accepted: bool) -> None:
    assert (
        sound(Hello(description=NodeDescription(), address=address, data_path_address=data_path)) is accepted
    )


def test_what_a_node_trusts_is_of_a_bounded_size() -> None:
    assert sound(Hello(description=NodeDescription(), trust_root="x" * 4096))
    assert not sound(Hello(description=NodeDescription(), trust_root="x" * (1 << 20)))
