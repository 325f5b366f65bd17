"""What is kept of a standalone container beside what the runtime needs of it: the user's own words."""

from functools import lru_cache

import msgspec

from worker.containers.request import HostConfig, Settings
from worker.endpoints import EndpointSettings
from worker.runtime.model import ContainerConfig


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A standalone container, as asked for and completed from its image.

    `endpoints` are its networks, by id for those that were found, in the order of its interfaces.
    """

    settings: Settings
    host: HostConfig
    endpoints: dict[str, EndpointSettings] = {}
    stopped_by_user: bool = False


def encode(record: Record) -> str:
    """As ContainerConfig.record."""
    return msgspec.json.encode(record).decode()


def record_of(config: ContainerConfig) -> Record | None:
    """The record of a standalone container; None for a task's."""
    return _decode(config.record) if config.record else None


@lru_cache(256)
def _decode(text: str) -> Record:
    return msgspec.json.decode(text, type=Record)


def with_record(config: ContainerConfig, record: Record) -> ContainerConfig:
    """The config with another record."""
    return msgspec.structs.replace(config, record=encode(record))
