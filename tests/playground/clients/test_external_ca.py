"""`--external-ca` of `docker swarm init` and `update`: another CA signs from the first certificate on."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from shoal.playground.layout import CLIENT, REGISTRY_NAME
from tests.playground.clients.coverage import covers
from tests.support.cfssl import PATH
from tests.support.cluster import Cluster, Json, eventually, playground

pytestmark = pytest.mark.playground

PORT = 8887
URL = f"https://{REGISTRY_NAME}:{PORT}{PATH}"
NOBODY = f"https://{REGISTRY_NAME}:{PORT + 2}{PATH}"


@pytest.fixture(scope="module")
def engine() -> Iterator[Cluster]:
    """A host in no cluster."""
    with playground(hosts=1, managers=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def root(engine: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA in the client namespace; the file with its root."""
    folder = tmp_path_factory.mktemp("ca")
    command = f"{sys.executable} -m tests.support.cfssl {folder} {REGISTRY_NAME} {PORT}"
    script = f"cd {Path.cwd()}; setsid {command} </dev/null >{folder / 'log'} 2>&1 &"
    engine.playground.run(CLIENT, ["sh", "-c", script])
    eventually("it serves", (folder / "root.pem").exists)
    return folder / "root.pem"


def in_force(engine: Cluster, root: Path) -> Json:
    """The swarm, once its root is that one."""
    swarm: Json = engine.curl("host1", "GET", "/swarm")[1]
    return swarm if swarm["TLSInfo"]["TrustRoot"] == root.read_text() else {}


@covers("swarm init", "--external-ca", "--advertise-addr")
@covers("swarm update", "--external-ca")
def test_certificates_come_from_outside(engine: Cluster, root: Path) -> None:
    init = ("swarm", "init", "--advertise-addr", engine.address("host1"), "--external-ca")
    assert "Nothing was changed" in engine.refused(*init, f"protocol=cfssl,url={NOBODY},cacert={root}")
    engine.docker(*init, f"protocol=cfssl,url={URL},cacert={root}")
    trusted = eventually("its root is the cluster's", lambda: in_force(engine, root))
    assert trusted["RootRotationInProgress"] is False
    file = engine.playground.host("host1").data / "swarm" / "certificates" / "node.crt"
    issuer = x509.load_pem_x509_certificate(file.read_bytes()).issuer.rfc4514_string()
    assert issuer == "CN=Example Root"
    # Without a certificate of its own, one that is named is of the root in force; it must be able to sign.
    update = ("swarm", "update", "--external-ca")
    assert engine.refused(*update, f"protocol=cfssl,url={NOBODY}")
    engine.docker(*update, f"protocol=cfssl,url={URL}")
    config = engine.curl("host1", "GET", "/swarm")[1]["Spec"]["CAConfig"]
    assert config["ExternalCAs"] == [{"Protocol": "cfssl", "URL": URL, "CACert": root.read_text()}]
    engine.docker("swarm", "leave", "--force")
