"""Names of containers: which are allowed, and one for a container that was given none."""

import re
from collections.abc import Collection

from cluster.errors import InvalidArgument
from cluster.seams import Random

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MOODS = (
    "agile", "amber", "bold", "brave", "bright", "brisk", "calm", "clever", "coral", "curious",
    "daring", "deep", "eager", "early", "fair", "fleet", "fond", "gentle", "glad", "golden", "happy",
    "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry",
    "misty", "modest", "nimble", "noble", "patient", "placid", "proud", "quick", "quiet", "radiant",
    "ready", "salty", "serene", "silver", "smart", "spry", "steady", "sunny", "swift", "tidy",
    "tranquil", "vivid", "warm", "wise", "witty", "zesty",
)  # fmt: skip
_CREATURES = (
    "albacore", "anchovy", "barnacle", "bass", "beluga", "bonito", "bream", "carp", "catfish", "clam",
    "cod", "conch", "crab", "cuttlefish", "dolphin", "dorado", "eel", "flounder", "grouper", "gurnard",
    "haddock", "hake", "halibut", "herring", "krill", "lamprey", "limpet", "lobster", "mackerel",
    "manatee", "manta", "marlin", "minnow", "mullet", "mussel", "narwhal", "nautilus", "octopus",
    "orca", "oyster", "perch", "pike", "plaice", "pollock", "porpoise", "prawn", "puffin", "ray",
    "salmon", "sardine", "scallop", "seahorse", "seal", "shrimp", "smelt", "snapper", "sole", "sponge",
    "sprat", "squid", "starfish", "sturgeon", "tarpon", "trout", "tuna", "turbot", "turtle", "urchin",
    "walrus", "whelk", "whiting", "wrasse",
)  # fmt: skip


def check_name(name: str) -> str:
    """The name without a leading slash; InvalidArgument for one that is not allowed."""
    bare = name.removeprefix("/")
    if not _NAME.fullmatch(bare):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def new_name(rng: Random, taken: Collection[str]) -> str:
    """A name that nobody has."""
    name = f"{_MOODS[rng.randrange(len(_MOODS))]}_{_CREATURES[rng.randrange(len(_CREATURES))]}"
    number = 0
    found = name
    while found in taken:
        number += 1
        found = f"{name}{number}"
    return found
