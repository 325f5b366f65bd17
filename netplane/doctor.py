"""What in this host's own set-up would get in the way. Reported, never changed."""

from netplane.errors import NetworkError
from netplane.libnftables import LibNftables


def warnings(rules: LibNftables) -> list[str]:
    """Sentences about other people's rules that drop what Shoal forwards."""
    found: list[str] = []
    try:
        chain = rules.list("chain ip filter FORWARD")
    except NetworkError:  # no such chain: nothing in the way
        return found
    if "policy drop" in chain:
        found.append(
            "the iptables FORWARD policy of this host is DROP (Docker sets it): traffic of Shoal's networks "
            "and published ports is dropped until it is accepted there, for example with "
            "`iptables -P FORWARD ACCEPT`"
        )
    return found
