"""What in this host's own set-up would get in the way. Reported, never changed."""

from dataclasses import dataclass

from netplane.errors import NetworkError
from netplane.libnftables import Rules

_TABLE = "shoal"


@dataclass(frozen=True)
class Dropping:
    """A chain of somebody else's that drops what it has no rule for. `empty`: it has none at all."""

    family: str  # ip, ip6, inet
    table: str
    chain: str
    hook: str
    empty: bool = False

    def concerns(self, address: str) -> bool:
        """Whether packets to an address come through it."""
        return self.family in ("inet", "ip6" if ":" in address else "ip")

    @property
    def where(self) -> str:
        """Its name, for a sentence."""
        return f"the chain {self.chain} of the nftables table {self.family} {self.table}"

    @property
    def warning(self) -> str:
        """What it does, and what to do."""
        return _warning(self)


def warnings(rules: Rules) -> list[str]:
    """Sentences about other people's rules that drop what Shoal forwards, or what nodes send each other."""
    return [each.warning for each in dropping(rules)]


def dropping(rules: Rules) -> list[Dropping]:
    """Other people's chains that drop what comes to this host or is forwarded by it."""
    found: list[Dropping] = []
    for family in ("ip", "ip6", "inet"):
        try:
            listed = rules.list(f"chains {family}")
        except NetworkError:  # the kernel has no such family
            continue
        found += [
            Dropping(family, table, chain, hook, empty=_is_empty(rules, f"{family} {table} {chain}"))
            for table, chain, hook, policy in base_chains(listed)
            if table != _TABLE and policy == "drop" and hook in ("forward", "input")
        ]
    return found


def _is_empty(rules: Rules, chain: str) -> bool:
    try:
        listed = rules.list(f"chain {chain}")
    except NetworkError:  # gone meanwhile, or of a kind that nft does not show
        return False
    # "table … {", "chain … {" and "type …"; what is left are rules.
    lines = (line.strip() for line in listed.splitlines())
    return not any(line.strip("}") and not line.startswith(("table ", "chain ", "type ")) for line in lines)


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


def _warning(found: Dropping) -> str:
    family, table, chain, where = found.family, found.table, found.chain, found.where
    if found.hook == "input":
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
