"""The base of all specs, and what several of them use."""

import msgspec

from cluster.naming import engine_name

UNKNOWN_FIELDS = "~" * 31
"""The name under which structs carry what they do not know; never on the wire or the disk (cluster.codec).

Every encoding is searched for it. That is fast with a long name of a character that hardly occurs.
"""


class Spec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    repr_omit_defaults=True,
    rename=engine_name,
):
    """Base of everything spoken in Engine JSON.

    `unknown_fields` is the msgpack of the fields that a newer Shoal has stored in this struct.
    """

    unknown_fields: bytes = msgspec.field(default=b"", name=UNKNOWN_FIELDS)


Labels = dict[str, str]


class DriverConfig(Spec, frozen=True):
    """A named driver with its options (logs, volumes)."""

    name: str = ""
    options: dict[str, str] | None = None
