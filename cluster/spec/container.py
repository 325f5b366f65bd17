"""What runs in a task: the container, its mounts, its security."""

import msgspec

from cluster.spec.base import DriverConfig, Labels, Spec


class BindOptions(Spec, frozen=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Spec, frozen=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: Labels | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Spec, frozen=True):
    """Options of a tmpfs mount; size in bytes, mode as file permission bits."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class ImageOptions(Spec, frozen=True):
    """Options of an image mount."""

    subpath: str = ""


class Mount(Spec, frozen=True):
    """A mount into a container."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class HealthConfig(Spec, frozen=True):
    """A health check: `["CMD", …]`, `["CMD-SHELL", …]`, `["NONE"]`, or empty to inherit the image's."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class DNSConfig(Spec, frozen=True):
    """Resolver settings of a container."""

    nameservers: list[str] | None = None
    search: list[str] | None = None
    options: list[str] | None = None


class FileTarget(Spec, frozen=True):
    """Where a secret or config appears in the container."""

    name: str = ""
    uid: str = "0"
    gid: str = "0"
    mode: int = 0


class SecretReference(Spec, frozen=True):
    """A secret that a container uses."""

    file: FileTarget | None = None
    secret_id: str = ""
    secret_name: str = ""


class ConfigReference(Spec, frozen=True):
    """A config that a container uses; `runtime` when it is not a file."""

    file: FileTarget | None = None
    runtime: dict[str, str] | None = None
    config_id: str = ""
    config_name: str = ""


class Ulimit(Spec, frozen=True):
    """One resource limit (setrlimit)."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class CredentialSpec(Spec, frozen=True):
    """Windows credential spec; carried, not used."""

    config: str = ""
    file: str = ""
    registry: str = ""


class SELinuxContext(Spec, frozen=True):
    """SELinux labels of the container."""

    disable: bool = False
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class SeccompOptions(Spec, frozen=True):
    """Seccomp: `default`, `unconfined` or `custom` with a base64 profile."""

    mode: str = ""
    profile: str | None = None


class AppArmorOptions(Spec, frozen=True):
    """AppArmor: `default` or `disabled`."""

    mode: str = ""


class Privileges(Spec, frozen=True):
    """Security options of the container."""

    credential_spec: CredentialSpec | None = None
    selinux_context: SELinuxContext | None = msgspec.field(default=None, name="SELinuxContext")
    seccomp: SeccompOptions | None = None
    app_armor: AppArmorOptions | None = None
    no_new_privileges: bool = False


class ContainerSpec(Spec, frozen=True):
    """What runs in a task."""

    image: str = ""
    labels: Labels | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    hostname: str = ""
    env: list[str] | None = None
    dir: str = ""
    user: str = ""
    groups: list[str] | None = None
    privileges: Privileges | None = None
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    mounts: list[Mount] | None = None
    stop_signal: str = ""
    stop_grace_period: int | None = None
    healthcheck: HealthConfig | None = None
    hosts: list[str] | None = None
    dns_config: DNSConfig | None = None
    secrets: list[SecretReference] | None = None
    configs: list[ConfigReference] | None = None
    oom_score_adj: int = 0
    isolation: str = ""
    init: bool | None = None
    sysctls: dict[str, str] | None = None
    capability_add: list[str] | None = None
    capability_drop: list[str] | None = None
    ulimits: list[Ulimit] | None = None
