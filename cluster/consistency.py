"""The headers by which a read of the cluster says what it is, shared by managers, daemons and clients.

    Shoal-Read: confirmed; index=123; leader=ID             has every write acknowledged before the request
    Shoal-Read: follower; index=120; leader=ID; age=0.804s  one manager's own state, at most so old
    Shoal-Write: committed; index=124; leader=ID            done: a majority has everything up to that index

A request with `Shoal-Consistency: stale` is answered at once from the manager's own state, also without a
leader. The first word is then what the manager takes itself for (`follower`, `leader`), and `age=unknown`
means that its state has not been confirmed since the manager started.
"""

READ = "Shoal-Read"
WRITE = "Shoal-Write"
CONSISTENCY = "Shoal-Consistency"
CONFIRMED, STALE = "confirmed", "stale"


def parse(value: str) -> tuple[str, dict[str, str]]:
    """A `Shoal-Read` header: its first word, and the rest by name."""
    word, *rest = (part.strip() for part in value.split(";"))
    return word, {name: text for name, _, text in (part.partition("=") for part in rest)}
