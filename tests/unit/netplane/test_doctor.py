"""Other people's rules that are in the way are named."""

from netplane.doctor import base_chains, dropping, warnings
from netplane.errors import NetworkError

LISTED = {
    "chains ip": """table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain DOCKER {
	}
}
table ip shoal {
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
}
""",
    "chain ip filter FORWARD": """table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		iifname "eth0" accept
	}
}
""",
    "chain inet firewall input": """table inet firewall {
	chain input {
		type filter hook input priority filter; policy drop;
	}
}
""",
    "chains inet": """table inet firewall {
	chain input {
		type filter hook input priority filter; policy drop;
	}
	chain forward {
		type filter hook forward priority 10; policy drop;
	}
	chain output {
		type filter hook output priority filter; policy accept;
	}
}
""",
}


class Host:
    """What `nft list` prints on a host."""

    def run(self, commands: str) -> None:
        raise AssertionError(f"other people's rules are never changed: {commands}")

    def list(self, what: str) -> str:
        if what not in LISTED:
            raise NetworkError("no such family")
        return LISTED[what]

    def close(self) -> None:
        pass


def test_policies_that_drop_are_named_with_what_to_do() -> None:
    found = warnings(Host())
    assert [warning.split(" drops")[0] for warning in found] == [
        "the chain FORWARD of the nftables table ip filter",
        "the chain input of the nftables table inet firewall",
        "the chain forward of the nftables table inet firewall",
    ]
    assert "`iptables -P FORWARD ACCEPT`" in found[0]
    assert "UDP 4789" in found[1]
    assert "nft add chain inet firewall forward '{ policy accept; }'" in found[2]


def test_whether_such_a_chain_has_rules_is_known() -> None:
    found = dropping(Host())
    assert [each.empty for each in found] == [False, True, False]  # the last one went meanwhile
    assert [each.concerns("fd00::1") for each in found] == [False, True, True]
    assert all(each.concerns("192.0.2.1") for each in found)


def test_only_chains_at_hooks_have_a_policy() -> None:
    assert base_chains(LISTED["chains ip"]) == [
        ("filter", "FORWARD", "forward", "drop"),
        ("shoal", "forward", "forward", "drop"),
    ]
