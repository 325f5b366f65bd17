"""What reads strangers' bytes, one function each: it may raise the errors that it documents, and no others.

`tests/unit/fuzz` runs all of them on spoiled samples in every run, `make fuzz` for as long as one likes, led
by coverage.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from cluster import messages, template
from cluster.errors import ShoalError
from cluster.identity import create_csr, create_root_ca, issue_certificate, new_join_token, parse_join_token
from cluster.joining import JoinRequest, RenewRequest
from cluster.messages import UnknownMessage
from cluster.objects import NodeDescription
from cluster.seams import SECOND, system_random
from cluster.spec import ServiceSpec
from cluster.spelling import spelled
from cluster.states import Role
from cluster.validate import check_service
from manager.api.filters import parse_filters
from manager.backup.file import MAGIC, Head, Scrypt, read_head
from manager.keys.sealing import Damaged, WrongKey, seal, unseal
from manager.port import client_hello_protocols
from manager.raft import wire as raft
from netplane.dns import wire as dns
from netplane.dns.answers import answers
from netplane.dns.cache import Cache
from netplane.dns.zone import Zone
from shoal.stack.stack import Source, load
from tests.support.layers import compress, directory, hardlink, make_tar, member, symlink
from worker.api import http
from worker.images.archive import Archive
from worker.images.auth import RegistryAuth, parse_challenges
from worker.images.config import ImageConfig, decode_config, encode_config, image_config
from worker.images.decompress import decompressed
from worker.images.errors import InvalidImage
from worker.images.manifest import Index, Platform, choose, decode_document
from worker.images.reference import Reference
from worker.images.tarstream import TarReader
from worker.logs.format import Joiner, parse_line

NOW = 1_700_000_000 * SECOND
_CA = create_root_ca(NOW)
_DIGEST = "sha256:" + "a" * 64
MANY = 1 << 22
"""More of anything than one sample may lead to."""


@dataclass(frozen=True)
class Target:
    """A reader of bytes, what it may raise, and sound samples."""

    run: Callable[[bytes], object]
    refuses_with: tuple[type[Exception], ...]
    samples: tuple[bytes, ...]

    def __call__(self, data: bytes) -> None:
        """Let it read; any other error is a defect."""
        try:
            self.run(data)
        except self.refuses_with:
            return


def _manifest(data: bytes) -> None:
    document = decode_document(data)
    assert document.digest
    if isinstance(document.parsed, Index):
        choose(document.parsed, Platform("amd64", "linux"))


def _config(data: bytes) -> None:
    document = decode_config(data)
    encode_config(image_config(document), document.rootfs.diff_ids)


def _tar(data: bytes) -> None:
    reader = TarReader(io.BytesIO(data).read)
    for entry in reader:
        assert "\0" not in entry.name
        assert sum(map(len, reader.content())) == entry.size


def _compressed(data: bytes) -> None:
    read, total = decompressed(io.BytesIO(data)), 0
    while total < MANY and (chunk := read(1 << 16)):
        assert len(chunk) <= 1 << 16
        total += len(chunk)


def _archive(data: bytes) -> None:
    archive = Archive(io.BytesIO(data), MANY)
    for image in archive.images():
        for layer in image.layers:
            archive.size(layer)


def _challenges(data: bytes) -> None:
    for challenge in parse_challenges(data.decode("latin-1")):
        assert challenge.scheme


def _registry_auth(data: bytes) -> None:
    RegistryAuth.decode(data.decode("latin-1"))


def _reference(data: bytes) -> None:
    reference = Reference.parse(data.decode("utf-8", "surrogateescape"))
    assert Reference.parse(str(reference)) == reference


_ZONE = Zone(
    {b"web": (bytes(4),) * 40, b"web.front": (bytes(4),)},
    {"10.0.0.2": "web.front", "fd00::2": "web.front"},
    {b"web": (bytes(16),)},
    {b"_80._tcp.web": ((80, "web.front"),) * 9},
)


def _dns(data: bytes) -> None:
    found = answers(lambda _: _ZONE, data, ["front"])
    for answer in found or ():
        assert len(answer) <= max(len(data), 65535)
        assert not answer or answer[:2] == data[:2]
    if found is None:
        query = dns.parse(data)
        assert query is not None
        dns.answer(data, query, code=dns.SERVFAIL)


def _dns_reply(data: bytes) -> None:
    cache = Cache()
    cache.put(_QUERY, len(_QUERY), data, 0.0, tcp=False)
    kept = cache.get(_QUERY, len(_QUERY), 1.0, tcp=False)
    assert kept is None or (len(kept) == len(data) and kept[:2] == _QUERY[:2])


def _join(data: bytes) -> None:
    request = msgspec.convert(spelled(msgspec.json.decode(data), JoinRequest), JoinRequest)
    parse_join_token(request.token)
    _certificate(request.csr.encode())


def _renew(data: bytes) -> None:
    _certificate(msgspec.json.decode(data, type=RenewRequest).csr.encode())


def _certificate(csr: bytes) -> None:
    issue_certificate(
        _CA, csr, node_id="n", role=Role.WORKER, cluster_id="c", now=NOW, lifetime=3600 * SECOND
    )


def _from_agents(data: bytes) -> None:
    messages.agent_messages().decode(data)


def _from_managers(data: bytes) -> None:
    messages.manager_messages().decode(data)


def _raft(data: bytes) -> None:
    reader = raft.FrameReader()
    for start in range(0, len(data), 7):
        reader.feed(data[start : start + 7])


def _client_hello(data: bytes) -> None:
    if data:
        names = client_hello_protocols(data)
        assert names is None or sum(map(len, names)) <= len(data)


def _filters(data: bytes) -> None:
    query: Any = SimpleNamespace(query={"filters": data.decode("utf-8", "surrogateescape")})
    filters = parse_filters(query, frozenset({"name", "label", "dangling"}))
    filters.exact("name", "web")
    filters.labels({"a": "b"})
    filters.boolean("dangling")


def _node_filters(data: bytes) -> None:
    query: Any = SimpleNamespace(query={"filters": data.decode("utf-8", "surrogateescape")})
    wanted = http.filters(query, {"name", "label", "dangling"})
    http.boolean_filter(wanted, "dangling")
    http.matches_labels({"a": "b"}, wanted.get("label", []))


def _service(data: bytes) -> None:
    check_service(msgspec.convert(spelled(msgspec.json.decode(data), ServiceSpec), ServiceSpec))


def _template(data: bytes) -> None:
    template.expand(data.decode("utf-8", "surrogateescape"), template.Fields(service_labels={"a": "b"}))


def _container_log(data: bytes) -> None:
    joiner = Joiner()
    read = 0
    for raw in data.split(b"\n"):
        line = parse_line(raw)
        if line is not None and (entry := joiner.add(line)) is not None:
            read += len(entry.data)
    read += sum(len(entry.data) for entry in joiner.rest())
    assert read <= len(data)


def _backup_head(data: bytes) -> None:
    head, _ = read_head(io.BytesIO(data).read)
    head.scrypt.key("secret")


def _sealed(data: bytes) -> None:
    for piece in unseal(io.BytesIO(data).read, _KEY, b"fuzz"):
        assert len(piece) <= len(data)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


_DESCRIPTOR = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 7}
_MANIFEST = _json({"schemaVersion": 2, "config": _DESCRIPTOR, "layers": [_DESCRIPTOR]})
_INDEX = _json(
    {
        "schemaVersion": 2,
        "manifests": [{**_DESCRIPTOR, "platform": {"architecture": "amd64", "os": "linux"}}],
    }
)
_CONFIG = encode_config(ImageConfig(env=("A=b",), cmd=("sh",), created="2026-01-01T00:00:00Z"), [_DIGEST])
_TAR = make_tar(
    directory("etc"),
    member("etc/hosts", b"x" * 700),
    symlink("etc/link", "/etc/hosts"),
    hardlink("b", "etc/hosts"),
)
_LONG = make_tar(member("n" * 300, b"y", pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}))
_CSR = create_csr()[1].decode()
_TOKEN = new_join_token(_CA[0], system_random())
_QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01"
_HELLO_BODY = (
    b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    + b"\x00\x11" + b"\x00\x10\x00\x0d\x00\x0b\x0ashoal-raft"
)  # fmt: skip
_HELLO = (
    b"\x16\x03\x01"
    + (len(_HELLO_BODY) + 4).to_bytes(2)
    + b"\x01"
    + len(_HELLO_BODY).to_bytes(3)
    + _HELLO_BODY
)
_SERVICE = _json(
    {
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {"Image": "nginx", "Env": ["A={{.Node.ID}}"], "Mounts": None}},
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]},
    }
)
_LOG = (
    b"2026-11-21T12:47:23.020213890+00:00 stdout P part\n"
    b"2026-11-21T12:47:23.020213890Z stderr F err\n2026-11-21T12:47:24+00:00 stdout F end\n"
)
_FRAMES = (
    raft.encode(raft.Hello(address="192.0.2.1:2377")),
    raft.encode(raft.AppendEntries(3, 2, 1, 1, [(b"entry", 2, 3)])),
    raft.encode(raft.SnapshotChunk(3, 2, 0, b"data", True)),
    raft.encode(raft.Progress(3, 4, success=True)),
)
_AGENTS = messages.agent_messages()
_MANAGERS = messages.manager_messages()

_KEY = bytes(32)
_HEAD = _json(Head(1, "c", "n", 0, 1, "passphrase", Scrypt("00", n=2, r=1)))
_BACKUP = MAGIC + len(_HEAD).to_bytes(4, "little") + _HEAD

_MSGPACK = (msgspec.MsgspecError, ValueError, UnknownMessage)
_REQUEST = (
    ShoalError,
    msgspec.MsgspecError,
    RecursionError,
    UnicodeError,
)  # the last three: manager.api.request


def _compose(data: bytes) -> object:
    return load(Source([("f.yml", data.decode(errors="replace"))], Path("/nonexistent"), {}), "s")


TARGETS: dict[str, Target] = {
    "manifest": Target(_manifest, (ShoalError,), (_MANIFEST, _INDEX)),
    "config": Target(_config, (InvalidImage,), (_CONFIG,)),
    "tar": Target(_tar, (InvalidImage,), (_TAR, _LONG)),
    "compressed": Target(
        _compressed,
        (InvalidImage,),
        (compress(_TAR, "gzip"), compress(_TAR, "zstd"), compress(_TAR, "gzip") * 2),
    ),
    "archive": Target(
        _archive,
        (ShoalError,),
        (
            make_tar(
                member("manifest.json", _json([{"Config": "c", "Layers": ["l"], "RepoTags": ["web:1"]}])),
                member("c", _CONFIG),
                symlink("l", "c"),
            ),
            make_tar(member("index.json", _INDEX), member(f"blobs/sha256/{'a' * 64}", _MANIFEST)),
        ),
    ),
    "challenges": Target(
        _challenges,
        (),
        (b'Bearer realm="https://a/t",service="r",scope="repository:a:pull"', b'Basic realm=x, Foo a="\\"b"'),
    ),
    "compose": Target(
        _compose,
        (ShoalError,),
        (
            b"services: {web: {image: i, ports: ['80:80'], deploy: {replicas: 2}, user: '${B:-c}'}}",
            b"x-a: &a {image: i}\nservices:\n  web:\n    <<: *a\n    volumes: ['d:/d']\nvolumes: {d: {}}\n",
        ),
    ),
    "registry-auth": Target(
        _registry_auth, (ShoalError,), (b"eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImIifQ==",)
    ),
    "reference": Target(
        _reference, (ShoalError,), (b"registry.example:5000/a/b-c_d:1.2", b"nginx@" + _DIGEST.encode())
    ),
    "dns": Target(
        _dns,
        (),
        (
            _QUERY,
            _QUERY[:10] + b"\x00\x01" + _QUERY[12:] + b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00",
            b"\x12\x34\x28\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x06\x00\x01",
        ),
    ),
    "dns-reply": Target(
        _dns_reply,
        (),
        (
            b"\0\0\x81\x80\0\1\0\1\0\0\0\0" + _QUERY[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\n\0\0\1",
            b"\0\0\x81\x83\0\1\0\0\0\1\0\0"
            + _QUERY[12:]
            + b"\0\0\6\0\1\0\0\0\x3c\0\x16\0\0"
            + bytes(16)
            + b"\0\0\0\x1e",
        ),
    ),
    "join": Target(_join, _REQUEST, (_json({"token": _TOKEN, "csr": _CSR, "address": "192.0.2.1"}),)),
    "renew": Target(_renew, _REQUEST, (_json({"csr": _CSR}),)),
    "from-agents": Target(
        _from_agents,
        _MSGPACK,
        (
            _AGENTS.encode(messages.Hello(description=NodeDescription(), address="192.0.2.1")),
            _AGENTS.encode(messages.Applied(sequence=4)),
        ),
    ),
    "from-managers": Target(
        _from_managers, _MSGPACK, (_MANAGERS.encode(messages.LogRequest(request=1, task_ids=("t",))),)
    ),
    "raft": Target(_raft, (raft.BadFrame,), (*_FRAMES, b"".join(_FRAMES))),
    "client-hello": Target(_client_hello, (), (_HELLO,)),
    "filters": Target(
        _filters, (ShoalError,), (b'{"name":{"web":true}}', b'{"label":["a=b"],"dangling":["1"]}')
    ),
    "node-filters": Target(
        _node_filters, (ShoalError,), (b'{"name":{"web":true}}', b'{"label":["a=b"],"dangling":["1"]}')
    ),
    "service": Target(_service, _REQUEST, (_SERVICE,)),
    "template": Target(
        _template, (ShoalError,), (b'{{.Node.ID}}-{{index .Service.Labels "a"}}', b"{{- .Task.Slot -}}")
    ),
    "backup-head": Target(_backup_head, (ShoalError,), (_BACKUP,)),
    "sealed": Target(
        _sealed, (WrongKey, Damaged), (b"".join(seal([b"some", b"text"], _KEY, b"fuzz", system_random())),)
    ),
    "container-log": Target(_container_log, (), (_LOG,)),
}
