"""TLS for HTTP on the cluster port. Certificates are checked by OpenSSL, roles and clusters by `peers`."""

import os
import ssl

from cluster.identity import Identity
from cluster.states import Role

MANAGER_NAME = Role.MANAGER.organizational_unit
"""Every manager's certificate has this DNS name, so that TLS itself refuses a server that is none."""


def server_context(identity: Identity) -> ssl.SSLContext:
    """For connections to this manager. A client certificate is optional: a joiner has none yet."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def client_context(identity: Identity) -> ssl.SSLContext:
    """For connections to other managers; connect with server_hostname=MANAGER_NAME."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=identity.root_ca.decode())
    load_chain(context, identity)
    return context


def load_chain(context: ssl.SSLContext, identity: Identity) -> None:
    """Use the node's certificate and key. OpenSSL reads files only: a memory file keeps it off the disk."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, identity.certificate + b"\n" + identity.key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
