"""The data of secrets and configs: base64 in specs, in either alphabet."""

from base64 import b64decode

from cluster.spec import DriverConfig

GO_TEMPLATE = "golang"
"""The templating driver that SwarmKit has."""


def payload_bytes(data: str) -> bytes:
    """The bytes. Raises binascii.Error or ValueError."""
    if "-" in data or "_" in data:
        return b64decode(data, altchars=b"-_", validate=True)
    return b64decode(data, validate=True)


def is_template(templating: DriverConfig | None) -> bool:
    """True when the data is a template, to be filled in for each task."""
    return templating is not None and templating.name == GO_TEMPLATE
