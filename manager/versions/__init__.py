"""Versions of secrets and configs: a new one takes the name, services roll to it, old ones go when unused."""

from manager.versions.keeper import VersionKeeper
from manager.versions.payloads import Outcome, kept_labels, replaced

__all__ = ["Outcome", "VersionKeeper", "kept_labels", "replaced"]
