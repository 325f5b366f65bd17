"""An image's configuration: the JSON document whose digest is the image's id (OCI image spec, config.md)."""

import msgspec

from cluster.spec import HealthConfig, Spec
from worker.images.digest import check_digest
from worker.images.errors import InvalidImage

MAX_CONFIG_BYTES = 8 << 20
MAX_LAYERS = 127
"""As many as dockerd accepts; overlayfs' option string (one page) bears no more."""


class ContainerDefaults(Spec, frozen=True):
    """The document's `config` part: how a container of the image runs unless told otherwise."""

    user: str = ""
    exposed_ports: dict[str, msgspec.Raw] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, msgspec.Raw] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: HealthConfig | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class RootFS(msgspec.Struct, frozen=True):
    """The layers' digests, uncompressed, lowest first."""

    type: str = "layers"
    diff_ids: list[str] = []


class HistoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step that made the image; `empty_layer` when it changed no file."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ConfigDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document as stored and exchanged."""

    architecture: str
    os: str
    rootfs: RootFS
    config: ContainerDefaults | None = None
    created: str | None = None
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    history: list[HistoryEntry] | None = None


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the rest of Shoal needs of a configuration. `created` is RFC 3339, empty when unknown."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: dict[str, str] = {}
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: HealthConfig | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    architecture: str = "amd64"
    variant: str = ""
    os: str = "linux"
    os_version: str = ""
    created: str = ""
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    history: tuple[HistoryEntry, ...] = ()


def decode_config(content: bytes) -> ConfigDocument:
    """Parse and check a configuration; raises InvalidImage."""
    if len(content) > MAX_CONFIG_BYTES:
        raise InvalidImage(f"image configuration is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        document = msgspec.json.decode(content, type=ConfigDocument)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidImage(f"image configuration can't be read: {error}") from error
    if document.rootfs.type != "layers":
        raise InvalidImage(f"image root file system is of unknown type {document.rootfs.type!r}")
    if len(document.rootfs.diff_ids) > MAX_LAYERS:
        raise InvalidImage(f"image has more than {MAX_LAYERS} layers")
    for diff_id in document.rootfs.diff_ids:
        check_digest(diff_id)
    return document


def encode_config(config: ImageConfig, diff_ids: list[str]) -> bytes:
    """The document of a new image with these layers."""
    return msgspec.json.encode(
        ConfigDocument(
            architecture=config.architecture,
            os=config.os,
            rootfs=RootFS(diff_ids=diff_ids),
            config=ContainerDefaults(
                user=config.user,
                exposed_ports={port: msgspec.Raw(b"{}") for port in config.exposed_ports} or None,
                env=list(config.env) or None,
                entrypoint=list(config.entrypoint) or None,
                cmd=list(config.cmd) or None,
                volumes={path: msgspec.Raw(b"{}") for path in config.volumes} or None,
                working_dir=config.working_dir,
                labels=config.labels or None,
                stop_signal=config.stop_signal,
                stop_timeout=config.stop_timeout,
                healthcheck=config.healthcheck,
                shell=list(config.shell) or None,
                on_build=list(config.on_build) or None,
            ),
            created=config.created or None,
            variant=config.variant,
            os_version=config.os_version,
            author=config.author,
            comment=config.comment,
            docker_version=config.docker_version,
            history=list(config.history) or None,
        )
    )


def image_config(document: ConfigDocument) -> ImageConfig:
    """The flattened view of a document."""
    defaults = document.config or ContainerDefaults()
    return ImageConfig(
        entrypoint=tuple(defaults.entrypoint or ()),
        cmd=tuple(defaults.cmd or ()),
        env=tuple(defaults.env or ()),
        working_dir=defaults.working_dir,
        user=defaults.user,
        labels=defaults.labels or {},
        exposed_ports=tuple(sorted(defaults.exposed_ports or ())),
        volumes=tuple(sorted(defaults.volumes or ())),
        stop_signal=defaults.stop_signal,
        stop_timeout=defaults.stop_timeout,
        healthcheck=defaults.healthcheck,
        shell=tuple(defaults.shell or ()),
        on_build=tuple(defaults.on_build or ()),
        architecture=document.architecture,
        variant=document.variant,
        os=document.os,
        os_version=document.os_version,
        created=document.created or "",
        author=document.author,
        comment=document.comment,
        docker_version=document.docker_version,
        history=tuple(document.history or ()),
    )
