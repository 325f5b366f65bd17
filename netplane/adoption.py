"""After a restart: which sandboxes are still there, and what is left of the others."""

import logging

from netplane import builder, ends, links, netns
from netplane.model import SandboxRecord
from netplane.netlink.wire import NetlinkSocket
from netplane.storage import Storage

log = logging.getLogger("shoal.netplane")


def survivors(storage: Storage, host: NetlinkSocket) -> list[SandboxRecord]:
    """The sandboxes that still are; everything else of an earlier run's is cleared away.

    After a power loss the records and empty mount points are there but no namespace is.
    """
    adopted: list[SandboxRecord] = []
    for record in storage.load_sandboxes():
        path = record.sandbox.netns
        if path is None or netns.is_namespace(path):
            adopted.append(record)
        else:
            log.info("sandbox %s did not survive", record.sandbox.id)
            builder.demolish([(path, record.interfaces)], {}, host)
            storage.forget_sandbox(record.sandbox.id)
    known = {record.sandbox.id for record in adopted}
    for path in storage.namespaces.iterdir():
        if path.name not in known:
            netns.remove_namespace(path)
    ports = {interface.port for record in adopted for interface in record.interfaces}
    stale = [
        name
        for name, link in links.list_links().items()
        if name.startswith(ends.PORT_PREFIX) and link.kind == "veth" and name not in ports
    ]
    if stale:
        links.delete_links(stale)
    return adopted
