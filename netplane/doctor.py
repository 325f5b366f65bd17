"""What in this host's own set-up would get in the way. Reported, never changed."""

from netplane.errors import NetworkError
from netplane.libnftables import Rules

_TABLE = "shoal"


def warnings(rules: Rules) -> list[str]:
    """Sentences about other people's rules that drop what Shoal forwards, or what nodes send each other."""
    found: list[str] = []
    for family in ("ip", "ip6", "inet"):
        try:
            listed = rules.list(f"chains {family}")
        except NetworkError:  # the kernel has no such family
            continue
        found += [
            _warning(family, table, chain, hook)
            for table, chain, hook, policy in base_chains(listed)
            if table != _TABLE and policy == "drop" and hook in ("forward", "input")
        ]
    return found


def base_chains(listed: str) -> list[tuple[str, str, str, str]]:
    """Table, chain, hook and policy of every base chain that `nft list chains` printed."""
    found: list[tuple[str, str, str, str]] = []
    table = chain = ""
    for line in listed.splitlines():
        words = line.strip().rstrip("{").split()
        if words[:1] == ["table"]:
            table = words[-1]
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif words[:1] == ["type"] and "hook" in words:
            policy = words[words.index("policy") + 1].rstrip(";") if "policy" in words else "accept"
            found.append((table, chain, words[words.index("hook") + 1], policy))
    return found


def _warning(family: str, table: str, chain: str, hook: str) -> str:
    where = f"the chain {chain} of the nftables table {family} {table}"
    if hook == "input":
        return (
            f"{where} drops what comes to this host unless a rule of it says otherwise: it must accept what "
            "the other nodes send on the data path (UDP 4789), and on managers TCP 2377"
        )
    accept = (
        f"{'ip6tables' if family == 'ip6' else 'iptables'} -P FORWARD ACCEPT"
        if (table, chain) == ("filter", "FORWARD")
        else f"nft add chain {family} {table} {chain} '{{ policy accept; }}'"
    )
    return (
        f"{where} drops what this host forwards unless a rule of it says otherwise (Docker and firewalls set "
        f"that): Shoal's networks and published ports need it accepted there, for example with `{accept}`"
    )
