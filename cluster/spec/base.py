"""The base of all specs, and what several of them use."""

import msgspec

from cluster.naming import engine_name


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=engine_name):
    """Base of everything spoken in Engine JSON."""


Labels = dict[str, str]


class DriverConfig(Spec, frozen=True):
    """A named driver with its options (logs, volumes)."""

    name: str = ""
    options: dict[str, str] | None = None
