"""From a task to its container: pure, everything resolved, nothing done yet."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from cluster.defaults import stop_grace_period
from cluster.generic_resources import environment as resource_variables
from cluster.linux import MAX_HOSTNAME
from cluster.objects import Record, Task
from cluster.spec import ContainerSpec, Mount, Privileges
from worker.agent.executor import TaskRejected
from worker.agent.template import Template
from worker.health import effective_check
from worker.images.config import ImageConfig
from worker.images.model import Image
from worker.runtime.apparmor import UNCONFINED
from worker.runtime.model import (
    ContainerConfig,
    InMemoryFile,
    LogConfig,
    MountPoint,
    ResourceLimits,
    Rlimit,
    SeccompMode,
)

TASK_LABEL = "com.docker.swarm.task.id"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NetworkFiles(Record, frozen=True):
    """What the network plane gives a container: its namespace's path and the contents of two files."""

    netns: str = ""  # empty: the host's network
    resolv_conf: str = ""
    hosts: str = ""
    hostname: str = ""  # the host's own name, for containers on the host's network


def container_id(task_id: str) -> str:
    """The id of a task's container: derived, so that it can be found again after any crash."""
    return hashlib.sha256(b"shoal-task:" + task_id.encode()).hexdigest()


def task_id_of(container: ContainerConfig) -> str:
    """The task whose container this is; "" for any other container."""
    task_id = container.labels.get(TASK_LABEL, "")
    return task_id if container.id == container_id(task_id) else ""


def container_config(
    task: Task,
    image: Image,
    network: NetworkFiles,
    mounts: Sequence[MountPoint],
    files: Sequence[InMemoryFile],
    template: Template,
    created_at: int,
) -> ContainerConfig:
    """The container of a task. Raises TaskRejected when the spec can't be run."""
    spec = task.spec.container_spec or ContainerSpec()
    identifier = container_id(task.id)
    privileges = spec.privileges
    seccomp = privileges.seccomp if privileges else None
    armor = privileges.app_armor if privileges else None
    args = arguments(spec, image.config)
    if not args:
        raise TaskRejected(f"no command specified: neither the service nor image {spec.image} names one")
    return ContainerConfig(
        id=identifier,
        name=task.name,
        image_id=image.id,
        image_name=spec.image,
        layers=image.layers,
        args=args,
        env=(
            *environment(spec, image.config, template),
            *(f"{name}={value}" for name, value in resource_variables(task.generic_resources).items()),
        ),
        cwd=spec.dir or image.config.working_dir or "/",
        user=spec.user or image.config.user,
        groups=tuple(spec.groups or ()),
        hostname=hostname(spec, template, identifier) if network.netns else network.hostname,
        labels={**image.config.labels, **(spec.labels or {}), **task_labels(task)},
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        read_only=spec.read_only,
        mounts=tuple(mounts),
        netns=_path(network.netns),
        resolv_conf=network.resolv_conf,
        hosts=network.hosts,
        stop_signal=spec.stop_signal or image.config.stop_signal,
        stop_grace_ns=stop_grace_period(spec),
        cap_add=tuple(spec.capability_add or ()),
        cap_drop=tuple(spec.capability_drop or ()),
        no_new_privileges=bool(privileges and privileges.no_new_privileges),
        seccomp=SeccompMode(seccomp.mode) if seccomp and seccomp.mode else SeccompMode.DEFAULT,
        seccomp_profile=_decoded(seccomp.profile) if seccomp and seccomp.profile else "",
        apparmor_profile=UNCONFINED if armor and armor.mode == "disabled" else "",
        selinux=_selinux(privileges),
        sysctls=spec.sysctls or {},
        ulimits=tuple(Rlimit(name=u.name, soft=u.soft, hard=u.hard) for u in spec.ulimits or ()),
        init=spec.init,
        resources=resources(task),
        oom_score_adj=spec.oom_score_adj,
        log=log_config(task),
        files=tuple(files),
        healthcheck=effective_check(image.config.healthcheck, spec.healthcheck),
        created_at=created_at,
    )


def arguments(spec: ContainerSpec, image: ImageConfig) -> tuple[str, ...]:
    """Entrypoint and command: the spec's entrypoint drops the image's command, as in dockerd."""
    if spec.command:
        return (*spec.command, *(spec.args or ()))
    return (*image.entrypoint, *(spec.args or image.cmd))


def own_environment(spec: ContainerSpec, template: Template) -> dict[str, str | None]:
    """The spec's variables with their templates filled in; None for a bare name, which removes a variable."""
    variables: dict[str, str | None] = {}
    for text in spec.env or ():
        name, separator, value = text.partition("=")
        variables[name] = template.expand(value) if separator else None
    return variables


def environment(spec: ContainerSpec, image: ImageConfig, template: Template) -> tuple[str, ...]:
    """The image's variables, overridden by the spec's."""
    variables: dict[str, str | None] = {}
    for text in (DEFAULT_PATH, *image.env):
        name, _, value = text.partition("=")
        variables[name] = value
    variables |= own_environment(spec, template)
    return tuple(f"{name}={value}" for name, value in variables.items() if value is not None)


def hostname(spec: ContainerSpec, template: Template, identifier: str) -> str:
    """The container's host name: the spec's, or the short container id. Raises TaskRejected."""
    name = template.expand(spec.hostname) if spec.hostname else identifier[:12]
    if len(name.encode()) > MAX_HOSTNAME:
        raise TaskRejected(f"invalid hostname {name!r}: it may have {MAX_HOSTNAME} bytes at most")
    return name


def filled_mount(mount: Mount, template: Template) -> Mount:
    """The mount with its templates filled in: source, target, labels and driver options of a volume."""
    volume = mount.volume_options
    if volume is not None:
        driver = volume.driver_config
        if driver is not None:
            driver = replace(driver, options=template.expand_all(driver.options))
        volume = replace(volume, labels=template.expand_all(volume.labels), driver_config=driver)
    source, target = template.expand(mount.source), template.expand(mount.target)
    return replace(mount, source=source, target=target, volume_options=volume)


def extra_hosts(spec: ContainerSpec) -> tuple[str, ...]:
    """The spec's hosts, in the form of /etc/hosts ("ADDRESS NAME ALIAS"), one "NAME:ADDRESS" a name."""
    found = []
    for entry in spec.hosts or ():
        address, *names = entry.split()
        found += [f"{name}:{address}" for name in names]
    return tuple(found)


def task_labels(task: Task) -> dict[str, str]:
    """The labels by which clients find the containers of a service."""
    return {
        "com.docker.swarm.node.id": task.node_id,
        "com.docker.swarm.service.id": task.service_id,
        "com.docker.swarm.service.name": task.service_name,
        "com.docker.swarm.task": "",
        TASK_LABEL: task.id,
        "com.docker.swarm.task.name": task.name,
    }


def resources(task: Task) -> ResourceLimits:
    """Limits in the runtime's terms."""
    requirements = task.spec.resources
    limits = requirements.limits if requirements else None
    reservations = requirements.reservations if requirements else None
    memory = limits.memory_bytes if limits else 0
    reserved = reservations.memory_bytes if reservations else 0
    swap = requirements.swap_bytes if requirements else None
    swappiness = requirements.memory_swappiness if requirements else None
    return ResourceLimits(
        memory=memory,
        memory_reservation=min(reserved, memory) if memory else reserved,
        memory_swap=0 if swap is None else -1 if swap < 0 else memory + swap,
        memory_swappiness=None if swappiness == -1 else swappiness,  # -1: as the node does
        nano_cpus=limits.nano_cpus if limits else 0,
        pids=max(0, limits.pids) if limits else 0,
    )


def log_config(task: Task) -> LogConfig:
    """The task's log driver, or the cluster's for tasks that name none, or else the node's."""
    driver = task.spec.log_driver or task.log_driver
    if driver is None or not driver.name:
        return LogConfig(driver="")
    return LogConfig(driver=driver.name, options=driver.options or {})


def _selinux(privileges: Privileges | None) -> dict[str, str]:
    context = privileges.selinux_context if privileges else None
    if context is None or context.disable:
        return {}
    parts = {"user": context.user, "role": context.role, "type": context.type, "level": context.level}
    return {part: value for part, value in parts.items() if value}


def _decoded(profile: str) -> str:
    return base64.b64decode(profile).decode()


def _path(text: str) -> Path | None:
    return Path(text) if text else None
