"""What `swarm ca` and `swarm update` change of the root CA, and how one root gives way to another.

A new root signs from the moment that the change is written. The old root vouches for it, so that nodes which
know only the old one accept certificates of the new one. When every node has renewed (rotator.py), the new
root is in force alone, with join tokens of its own.
"""

from urllib.parse import urlsplit

from msgspec.structs import replace

from cluster.errors import InvalidArgument, Unavailable
from cluster.identity import ca_digest, create_csr, create_root_ca, new_join_token
from cluster.objects import Cluster, JoinTokens, Node, RootCA, RootRotation
from cluster.root_ca import check_distinct, checked_root, cross_sign
from cluster.seams import Clock, Random
from cluster.spec import CAConfig, ClusterSpec, ExternalCA
from cluster.states import Role
from manager.ca.external import ExternalCAs
from manager.ca.root import externals, signing, wanted_tls
from manager.store import Transaction

PROTOCOL = "cfssl"


async def changed_root(
    cluster: Cluster, spec: ClusterSpec, given: CAConfig, external: ExternalCAs, clock: Clock
) -> Cluster:
    """The cluster with these settings, and with the root that they ask for.

    `given` is the part about the CA as the user sent it; `spec` the settings as they will be. A certificate
    that is stored already says nothing new: clients send back what they have read. Asks external CAs, as a
    trial too, so that none is taken which can't sign. Raises InvalidArgument, Unavailable.
    """
    root, before = cluster.root_ca, cluster.spec.ca_config or CAConfig()
    config = replace(
        spec.ca_config or CAConfig(),
        external_cas=_checked(given.external_cas, before.external_cas, root, clock.now()),
        signing_ca_cert=given.signing_ca_cert,
        signing_ca_key="",
    )
    if given.signing_ca_key and not given.signing_ca_cert:
        raise InvalidArgument("a signing CA key must come with its certificate (--ca-cert)")
    explicit = bool(given.signing_ca_key) or given.signing_ca_cert not in ("", before.signing_ca_cert)
    forced = given.force_rotate not in (0, root.forced)
    now = clock.now()
    if explicit:
        certificate, key = checked_root(given.signing_ca_cert, given.signing_ca_key, now)
    elif forced:
        certificate, key = create_root_ca(now)
        config = replace(config, signing_ca_cert="")
    else:
        config = replace(config, force_rotate=before.force_rotate, signing_ca_cert=before.signing_ca_cert)
        certificate, key, _ = signing(root)
    changed = replace(cluster, spec=replace(spec, ca_config=config))
    if explicit or forced:
        root = await _towards(changed, (certificate, key), external)
        changed = replace(changed, root_ca=replace(root, forced=config.force_rotate))
    if not key or externals(changed, certificate) != externals(cluster, certificate):
        await _try(changed, certificate, key, external, now)
    return changed


async def _towards(cluster: Cluster, wanted: tuple[bytes, bytes], external: ExternalCAs) -> RootCA:
    """The root CA on its way to the wanted one (certificate, key or b"")."""
    (certificate, key), root = wanted, cluster.root_ca
    if certificate == root.certificate:  # a rotation away from it ends
        return replace(root, key=key, rotation=None)
    if root.rotation is not None and certificate == root.rotation.certificate:
        return replace(root, rotation=replace(root.rotation, key=key))
    if not key and not externals(cluster, certificate):
        raise InvalidArgument(
            "nobody could sign for this root CA: give its key (--ca-key), or an external CA that has it "
            "(--external-ca protocol=cfssl,url=https://...,cacert=...) with that very certificate"
        )
    check_distinct(certificate, root.certificate)
    if root.key:
        vouched = cross_sign(certificate, (root.certificate, root.key))
    elif key:
        vouched = await external.vouch(externals(cluster, root.certificate), root.certificate, wanted)
    else:
        raise InvalidArgument(
            "from one external CA to another there is no direct way, as the present one must vouch for the "
            "new root, which takes its key: rotate to a root of the cluster's own first "
            "(docker swarm ca --rotate)"
        )
    return replace(root, rotation=RootRotation(certificate=certificate, key=key, cross_signed=vouched))


async def _try(cluster: Cluster, certificate: bytes, key: bytes, external: ExternalCAs, now: int) -> None:
    """Let an external CA sign something that nobody will use. Raises InvalidArgument when none can."""
    cas = externals(cluster, certificate)
    if key and not cas:
        return
    _, csr = create_csr()
    try:
        await external.sign(
            cas, certificate, csr, node_id="trial", role=Role.WORKER, cluster_id=cluster.id, now=now
        )
    except Unavailable as error:
        raise InvalidArgument(f"{error}. Nothing was changed") from error


def _checked(
    given: list[ExternalCA] | None, before: list[ExternalCA] | None, root: RootCA, now: int
) -> list[ExternalCA] | None:
    """Each with the root that it signs for, as roots are stored; by default the present one."""
    if given is None:  # left out, which is no wish to be without
        return before
    checked = []
    for ca in given:
        if ca in (before or ()):
            checked.append(ca)
            continue
        if ca.protocol not in ("", PROTOCOL):
            raise InvalidArgument(f"unknown external CA protocol {ca.protocol!r}: only {PROTOCOL} is known")
        try:
            url = urlsplit(ca.url)
            sound = url.scheme == "https" and bool(url.hostname) and (url.port or 443) > 0
        except ValueError:
            sound = False
        if not sound:
            raise InvalidArgument(
                f"invalid URL of an external CA: {ca.url!r}; give https://HOST[:PORT]/api/v1/cfssl/sign"
            )
        certificate = checked_root(ca.ca_cert, "", now)[0] if ca.ca_cert else signing(root).certificate
        checked.append(replace(ca, protocol=PROTOCOL, ca_cert=certificate.decode()))
    return checked or None


def finish(tx: Transaction, rng: Random) -> bool:
    """Put the new root in force alone, if every node has what it should; whether that was done."""
    cluster = tx.cluster()
    if cluster is None or cluster.root_ca.rotation is None:
        return False
    wanted = wanted_tls(cluster)
    if any(node.tls != wanted for node in tx.all(Node)):
        return False
    rotation = cluster.root_ca.rotation
    certificate = rotation.certificate
    tokens = JoinTokens(worker=new_join_token(certificate, rng), manager=new_join_token(certificate, rng))
    root = replace(
        cluster.root_ca,
        certificate=certificate,
        key=rotation.key,
        digest=ca_digest(certificate),
        join_tokens=tokens,
        rotation=None,
    )
    tx.update(replace(cluster, root_ca=root))
    return True
