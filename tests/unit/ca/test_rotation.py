"""One root CA gives way to another, and nobody is cut off meanwhile."""

import asyncio
import ssl
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from msgspec.structs import replace

from cluster.engine_json import cluster_json, node_json
from cluster.errors import Forbidden, InvalidArgument, Unauthorized, Unavailable
from cluster.identity import (
    Identity,
    ca_digest,
    check_identity,
    create_csr,
    issue_certificate,
    parse_join_token,
    prove,
)
from cluster.joining import JoinRequest
from cluster.objects import Node
from cluster.root_ca import issuer
from cluster.states import Role
from manager.ca.rotation import finish
from manager.ca.rotator import BATCH, Rotator
from tests.support.cfssl import CertificateAuthority, pem
from tests.unit.ca.founded import HOUR, Founded, external, talk


@pytest.fixture
async def founded() -> Founded:
    return await Founded().begin()


async def try_to_finish(founded: Founded) -> bool:
    return await founded.store.update_retrying(lambda tx: finish(tx, founded.rng))


ROOTS = [
    CertificateAuthority("swarm-ca", ec.generate_private_key(ec.SECP256R1())),
    CertificateAuthority("Example Root", ec.generate_private_key(ec.SECP521R1()), identifier=b"number one"),
    CertificateAuthority("No identifier", identifier=None),
    CertificateAuthority(key=rsa.generate_private_key(65537, 2048), path_length=1),
]


@pytest.mark.parametrize("root", ROOTS, ids=["as the old one", "odd identifier", "no identifier", "RSA"])
async def test_all_can_talk_to_all_at_every_step(founded: Founded, root: CertificateAuthority) -> None:
    worker = await founded.join()
    before = founded.cluster.root_ca
    await founded.update(signing_ca_cert=pem(root.certificate), signing_ca_key=pem(root.key))
    steps = dict(founded.identities)

    def all_talk() -> None:
        for server in ("m1", "m1 before"):
            for client in (worker, "worker before"):
                talk({**steps, **founded.identities}[client], {**steps, **founded.identities}[server])

    steps |= {"m1 before": steps["m1"], "worker before": steps[worker]}
    all_talk()
    for node in ("m1", worker):  # one renews, then the other; and the other way round: "before" is the one
        await founded.renew(node)
        all_talk()
        assert not await try_to_finish(founded)
        await founded.report(node)
    late = await founded.join()  # somebody joins meanwhile, with the old token
    assert await try_to_finish(founded)
    now = founded.cluster.root_ca
    assert (now.certificate, now.rotation) == (pem(root.certificate).encode(), None)
    assert now.digest == ca_digest(now.certificate) != before.digest
    for token in (now.join_tokens.worker, now.join_tokens.manager):
        assert parse_join_token(token).digest == now.digest
    during = dict(founded.identities)
    for node in ("m1", worker):  # and again: some know the new root only, others both
        await founded.renew(node)
        for client in (worker, late):
            talk(founded.identities[client], founded.identities["m1"])
            talk(during[client], founded.identities["m1"])
            talk(founded.identities[client], during["m1"])
    with pytest.raises(ssl.SSLError):
        talk(steps["worker before"], founded.identities["m1"])


async def test_what_clients_see(founded: Founded) -> None:
    old = founded.cluster.root_ca.certificate
    await founded.rotate()
    rotation = founded.cluster.root_ca.rotation
    assert rotation is not None

    def swarm() -> dict[str, object]:
        shown = cluster_json(
            founded.cluster,
            issuer=issuer((founded.cluster.root_ca.rotation or founded.cluster.root_ca).certificate),
        )
        tls = shown["TLSInfo"]
        assert isinstance(tls, dict)
        return {**tls, "rotating": shown["RootRotationInProgress"]}

    def node() -> dict[str, object]:
        return {**node_json(founded.node("m1"))["Description"]["TLSInfo"]}

    new_issuer = b64encode(issuer(rotation.certificate).public_key).decode()
    assert swarm()["rotating"] is True
    assert swarm()["TrustRoot"] == node()["TrustRoot"] == old.decode()
    assert swarm()["CertIssuerPublicKey"] == new_issuer != node()["CertIssuerPublicKey"]
    await founded.renew("m1")
    await founded.report("m1")
    assert node()["CertIssuerPublicKey"] == new_issuer
    assert node()["TrustRoot"] == old.decode()
    assert await try_to_finish(founded)
    assert swarm()["rotating"] is False
    assert swarm()["TrustRoot"] == rotation.certificate.decode() != node()["TrustRoot"]
    await founded.renew("m1")
    await founded.report("m1")
    assert {**node(), "rotating": False} == swarm()
    text = str(cluster_json(founded.cluster, issuer=issuer(rotation.certificate)))
    assert "PRIVATE KEY" not in text


async def test_a_given_key_is_in_no_spec(founded: Founded) -> None:
    root = CertificateAuthority()
    await founded.update(signing_ca_cert=pem(root.certificate), signing_ca_key=pem(root.key))
    config = founded.cluster.spec.ca_config
    assert config is not None
    assert (config.signing_ca_key, config.signing_ca_cert) == ("", pem(root.certificate))
    assert founded.cluster.root_ca.rotation is not None


async def test_what_was_read_and_sent_back_changes_nothing(founded: Founded) -> None:
    root = CertificateAuthority()
    given = {"signing_ca_cert": pem(root.certificate), "signing_ca_key": pem(root.key)}
    await founded.rotate()
    await founded.update()  # with its ForceRotate
    generated = founded.cluster.root_ca
    assert generated.forced == 1
    await founded.update(force_rotate=0)  # from a client that does not know it
    assert founded.cluster.root_ca == generated
    await founded.update(**given)
    replaced = founded.cluster.root_ca
    assert replaced.rotation is not None
    assert generated.rotation is not None
    assert replaced.rotation.certificate != generated.rotation.certificate
    await founded.update()  # with the certificate, without the key
    await founded.update(**given)
    assert founded.cluster.root_ca == replaced


async def test_a_second_rotation_takes_the_place_of_the_first(founded: Founded) -> None:
    worker = await founded.join()
    await founded.rotate()
    await founded.renew(worker)
    await founded.report(worker)
    first = founded.cluster.root_ca.rotation
    await founded.rotate()
    second = founded.cluster.root_ca.rotation
    assert first is not None
    assert second is not None
    assert first.certificate != second.certificate
    await founded.renew("m1")
    talk(founded.identities[worker], founded.identities["m1"])
    await founded.report("m1")
    assert not await try_to_finish(founded)  # the worker has one of the first
    await founded.report(worker)
    assert founded.node(worker).tls.issuer_public_key == b""  # of a root that is none any more
    await founded.renew(worker)
    await founded.report(worker)
    assert await try_to_finish(founded)
    assert founded.cluster.root_ca.certificate == second.certificate


async def test_a_rotation_back_to_the_present_root_ends_it(founded: Founded) -> None:
    root = founded.cluster.root_ca
    await founded.rotate()
    await founded.renew("m1")
    await founded.update(signing_ca_cert=root.certificate.decode(), signing_ca_key=root.key.decode())
    assert founded.cluster.root_ca.rotation is None
    assert founded.cluster.root_ca.certificate == root.certificate
    worker = await founded.join()
    talk(founded.identities[worker], founded.identities["m1"])
    await founded.report("m1")
    assert founded.node("m1").tls.issuer_public_key != issuer(root.certificate).public_key


BAD_ROOTS = {
    "exactly one certificate": lambda: pem(ROOTS[0].certificate) + pem(ROOTS[1].certificate),
    "can't be read": lambda: "junk",
    "pathlen:0": lambda: pem(CertificateAuthority(path_length=0).certificate),
    "CA:TRUE": lambda: pem(CertificateAuthority(authority=False).certificate),
    "at least": lambda: pem(CertificateAuthority(key=rsa.generate_private_key(65537, 1024)).certificate),
    "not valid now": lambda: pem(CertificateAuthority(days=0).certificate),
    "does not belong": lambda: pem(ROOTS[1].certificate),
}


@pytest.mark.parametrize("words", BAD_ROOTS)
async def test_roots_that_are_none_are_refused(founded: Founded, words: str) -> None:
    before = founded.cluster
    with pytest.raises(InvalidArgument, match=words):
        await founded.update(signing_ca_cert=BAD_ROOTS[words](), signing_ca_key=pem(ROOTS[0].key))
    assert founded.cluster is before


async def test_roots_that_can_t_be_told_apart_are_refused(founded: Founded) -> None:
    """TLS finds an issuer by its name, and by the identifier of its key."""
    root = CertificateAuthority("swarm-ca", identifier=None)
    with pytest.raises(InvalidArgument, match="the same subject"):
        await founded.update(signing_ca_cert=pem(root.certificate), signing_ca_key=pem(root.key))


async def test_keys_that_are_none_are_refused(founded: Founded) -> None:
    certificate = pem(ROOTS[0].certificate)
    odd = pem(ed25519.Ed25519PrivateKey.generate())  # type: ignore[arg-type]
    for key, words in (("junk", "can't be read"), (odd, "elliptic curve or an RSA")):
        with pytest.raises(InvalidArgument, match=words):
            await founded.update(signing_ca_cert=certificate, signing_ca_key=key)
    with pytest.raises(InvalidArgument, match="its certificate"):
        await founded.update(signing_ca_key=pem(ROOTS[0].key))
    with pytest.raises(InvalidArgument, match="nobody could sign"):
        await founded.update(signing_ca_cert=certificate)


# --- the controller ---------------------------------------------------------------------------------------


async def test_nodes_are_told_a_batch_at_a_time_until_all_are_done(founded: Founded) -> None:
    nodes = ["m1", *[await founded.join() for _ in range(BATCH + 5)]]
    told: list[str] = []
    away = nodes[-1]

    def renew(node_id: str) -> bool:
        if node_id == away:
            return False
        told.append(node_id)
        return True

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while len(told) < count:
                await asyncio.sleep(0.005)

    running = asyncio.create_task(Rotator(founded.store, founded.clock, founded.rng, renew).run())
    try:
        await founded.rotate()
        await until(BATCH)
        await asyncio.sleep(0.05)
        assert len(told) == len(set(told)) == BATCH
        for node in told[:10]:
            await founded.renew(node)
            await founded.report(node)
        await until(len(nodes) - 1)
        running.cancel()  # another leader goes on
        await asyncio.wait((running,))
        running = asyncio.create_task(Rotator(founded.store, founded.clock, founded.rng, renew).run())
        for node in told[10 : len(nodes) - 1]:
            await founded.renew(node)
            await founded.report(node)
        assert founded.cluster.root_ca.rotation is not None  # one is away
        told.clear()
        await founded.store.update(lambda tx: tx.delete(Node, away))
        async with asyncio.timeout(10):
            while founded.cluster.root_ca.rotation is not None:
                await asyncio.sleep(0.005)
        await until(BATCH)  # at once they are told to forget the old root
    finally:
        running.cancel()
        await asyncio.wait((running,))


# --- a CA outside the cluster -----------------------------------------------------------------------------


async def test_a_ca_outside_signs_and_no_manager_has_its_key(founded: Founded) -> None:
    root = CertificateAuthority()
    certificate = pem(root.certificate)
    with root.serving() as url:
        await founded.update(signing_ca_cert=certificate, external_cas=external(url, certificate))
        rotation = founded.cluster.root_ca.rotation
        assert rotation is not None
        assert rotation.key == b""
        worker = await founded.join()
        for node in ("m1", worker):
            await founded.renew(node)
            await founded.report(node)
            peer = check_identity(founded.identities[node], founded.clock.now())
            assert (peer.node_id, peer.role) == (node, founded.node(node).role)
            talk(founded.identities[worker], founded.identities["m1"])
        assert await try_to_finish(founded)
        assert founded.cluster.root_ca.key == b""
        late = await founded.join(Role.MANAGER)
        talk(founded.identities[worker], founded.identities[late])
        asked = {request["subject"]["CN"] for request in root.asked}
        assert asked >= {"m1", worker, late}
        # Back to a root of the cluster's own: the one outside vouches for it.
        await founded.rotate()
        assert root.asked[-1]["profile"] == "CA"
        await founded.renew("m1")
        talk(founded.identities[worker], founded.identities["m1"])
        other = CertificateAuthority("other")
        with other.serving() as elsewhere:
            both = external(url, certificate) + external(elsewhere, pem(other.certificate))
            with pytest.raises(InvalidArgument, match="no direct way"):
                await founded.update(signing_ca_cert=pem(other.certificate), external_cas=both)
    assert founded.cluster.root_ca.rotation is not None
    for node in ("m1", worker, late):
        await founded.renew(node)  # not by the one outside, which is gone
        await founded.report(node)
    assert await try_to_finish(founded)
    assert founded.cluster.root_ca.key


async def test_a_ca_outside_may_be_added_for_the_present_root(founded: Founded) -> None:
    root = CertificateAuthority()
    await founded.update(signing_ca_cert=pem(root.certificate), signing_ca_key=pem(root.key))
    with root.serving() as url:
        await founded.update(external_cas=external(url))
        config = founded.cluster.spec.ca_config
        assert config is not None
        assert config.external_cas == external(url, pem(root.certificate))
        before = len(root.asked)
        await founded.renew("m1")
        assert len(root.asked) == before + 1
        # Saying so with the certificate alone gives the key away.
        await founded.update(signing_ca_cert=pem(root.certificate) + "\n")
        rotation = founded.cluster.root_ca.rotation
        assert rotation is not None
        assert rotation.key == b""
        with pytest.raises(InvalidArgument, match="Nothing was changed"):
            await founded.update(external_cas=[])
        await founded.update(external_cas=None)  # left out, which means nothing
    with pytest.raises(Unavailable, match="no external CA signed: https://127"):
        await founded.renew("m1")


@pytest.mark.parametrize(
    ("lies", "words"),
    [
        ({"fail": "policy says no"}, "refuses to sign: policy says no"),
        ({"OU": "swarm-manager"}, "OU=swarm-worker"),
        ({"hosts": ["elsewhere"]}, "lacks the DNS names"),
        ({"hosts": []}, "lacks the subject or the DNS"),
        ({"profile": "CA"}, "would let the node sign"),
    ],
)
async def test_a_ca_outside_that_does_not_sign_what_it_is_asked(
    founded: Founded, lies: dict[str, object], words: str
) -> None:
    root, before = CertificateAuthority(), founded.cluster
    root.lies = lies
    with root.serving() as url:
        cas = external(url, pem(root.certificate))
        with pytest.raises(InvalidArgument, match=words):
            await founded.update(signing_ca_cert=pem(root.certificate), external_cas=cas)
    assert founded.cluster is before


async def test_cas_outside_that_are_none_are_refused(founded: Founded) -> None:
    root, other = CertificateAuthority(), CertificateAuthority("other")
    certificate = pem(root.certificate)
    with root.serving() as url, other.serving() as elsewhere:
        wrong = [
            (external("http://ca.example/"), "give https://HOST"),
            (external("https://"), "give https://HOST"),
            (external("https://ca:port/"), "give https://HOST"),
            ([replace(external(url)[0], protocol="acme")], "only cfssl is known"),
            (external(url, "junk"), "can't be read"),
            (external(url + "er", certificate), "status 404"),
            (external(elsewhere, certificate), "not to be trusted"),
            (external(url.replace("127.0.0.1", "localhost"), certificate), "not to be trusted"),
            (external("https://127.0.0.1:1/", certificate), "127.0.0.1:1"),
        ]
        for cas, words in wrong:
            with pytest.raises(InvalidArgument, match=words):
                await founded.update(signing_ca_cert=certificate, external_cas=cas)
        # The second one is asked when the first does not answer.
        both = external("https://127.0.0.1:1/", certificate) + external(url, certificate)
        await founded.update(signing_ca_cert=certificate, external_cas=both)
    assert founded.cluster.root_ca.rotation is not None


async def test_a_cluster_can_begin_with_a_ca_outside() -> None:
    founded, root = Founded(), CertificateAuthority()
    certificate = pem(root.certificate)
    with root.serving() as url:
        config = replace(founded.founded.spec.ca_config, external_cas=external(url))  # type: ignore[type-var]
        with pytest.raises(InvalidArgument, match="cacert=FILE"):
            await founded.authority.at_founding(
                founded.founded, replace(founded.founded.spec, ca_config=config)
            )
        await founded.begin()  # for the manager's own identity
        config = replace(config, external_cas=external(url, certificate))
        cluster = await founded.authority.at_founding(
            founded.founded, replace(founded.founded.spec, ca_config=config)
        )
    rotation = cluster.root_ca.rotation
    assert rotation is not None
    assert (rotation.certificate.decode(), rotation.key) == (certificate, b"")


# --- coming back ------------------------------------------------------------------------------------------


async def come_back(founded: Founded, former: Identity, token: str, key: bytes = b"") -> str:
    _, csr = create_csr()
    proof = b64encode(prove(key or former.key, csr)).decode()
    request = JoinRequest(
        token=token,
        csr=csr.decode(),
        address="10.0.0.2",
        previous=former.certificate.decode(),
        proof=proof,
    )
    return (await founded.authority.admit(request)).node_id


async def test_a_node_comes_back_as_the_one_it_was(founded: Founded) -> None:
    worker, manager = await founded.join(), await founded.join(Role.MANAGER)
    tokens, nodes = founded.cluster.root_ca.join_tokens, founded.store.view().count(Node)
    former = founded.identities
    assert await come_back(founded, former[worker], tokens.worker) == worker
    assert await come_back(founded, former[worker], tokens.manager) == worker
    assert await come_back(founded, former[manager], tokens.manager) == manager
    with pytest.raises(Forbidden, match="join-token manager"):
        await come_back(founded, former[manager], tokens.worker)
    with pytest.raises(Unauthorized, match="former certificate"):
        await come_back(founded, former[worker], tokens.worker, key=former[manager].key)
    foreign = await Founded().begin()
    with pytest.raises(Unauthorized, match="former certificate"):
        await come_back(founded, foreign.identities["m1"], tokens.worker)
    with pytest.raises(Unauthorized, match="can't be read"):
        await founded.authority.admit(
            JoinRequest(token=tokens.worker, csr="x", address="10.0.0.2", previous="y", proof="?")
        )
    await founded.store.update(lambda tx: tx.delete(Node, worker))
    with pytest.raises(Forbidden, match="any more"):
        await come_back(founded, former[worker], tokens.worker)
    assert founded.store.view().count(Node) == nodes - 1


async def test_no_node_comes_back_as_another_one(founded: Founded) -> None:
    """A node's key signs no certificates: who has a worker's token and key is that worker, nobody else."""
    attacker, victim = await founded.join(), await founded.join()
    own, cluster = founded.identities[attacker], founded.cluster
    key, csr = create_csr()
    forged = issue_certificate(
        (own.certificate, own.key),
        csr,
        node_id=victim,
        role=Role.WORKER,
        cluster_id=cluster.id,
        now=founded.clock.now(),
        lifetime=HOUR,
    )
    made_up = Identity(forged + own.certificate, key, own.root_ca)
    with pytest.raises(Unauthorized, match="former certificate"):
        await come_back(founded, made_up, cluster.root_ca.join_tokens.worker)
    with pytest.raises(Unauthorized, match="not issued by"):
        check_identity(made_up, founded.clock.now())
