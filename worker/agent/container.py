"""From a task to its container: pure, everything resolved, nothing done yet."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.defaults import stop_grace_period
from cluster.generic_resources import environment as resource_variables
from cluster.objects import Config, Record, Secret, Task
from cluster.spec import ContainerSpec, FileTarget
from worker.agent.executor import TaskRejected
from worker.agent.template import Template
from worker.health import effective_check
from worker.images.config import ImageConfig
from worker.images.model import Image
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
        sysctls=spec.sysctls or {},
        ulimits=tuple(Rlimit(name=u.name, soft=u.soft, hard=u.hard) for u in spec.ulimits or ()),
        init=bool(spec.init),
        resources=resources(task),
        oom_score_adj=spec.oom_score_adj,
        log=_log(task),
        files=tuple(files),
        healthcheck=effective_check(image.config.healthcheck, spec.healthcheck),
        created_at=created_at,
    )


def arguments(spec: ContainerSpec, image: ImageConfig) -> tuple[str, ...]:
    """Entrypoint and command: the spec's entrypoint drops the image's command, as in dockerd."""
    if spec.command:
        return (*spec.command, *(spec.args or ()))
    return (*image.entrypoint, *(spec.args or image.cmd))


def environment(spec: ContainerSpec, image: ImageConfig, template: Template) -> tuple[str, ...]:
    """The image's variables, overridden by the spec's; a bare name removes a variable."""
    variables: dict[str, str] = {}
    for text in (DEFAULT_PATH, *image.env):
        name, _, value = text.partition("=")
        variables[name] = value
    for text in spec.env or ():
        name, separator, value = text.partition("=")
        if separator:
            variables[name] = template.expand(value)
        else:
            variables.pop(name, None)
    return tuple(f"{name}={value}" for name, value in variables.items())


def hostname(spec: ContainerSpec, template: Template, identifier: str) -> str:
    """The container's host name: the spec's, or the short container id."""
    return template.expand(spec.hostname) if spec.hostname else identifier[:12]


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
    swap = requirements.swap_bytes if requirements else None
    return ResourceLimits(
        memory=memory,
        memory_reservation=reservations.memory_bytes if reservations else 0,
        memory_swap=0 if swap is None else -1 if swap < 0 else memory + swap,
        memory_swappiness=requirements.memory_swappiness if requirements else None,
        nano_cpus=limits.nano_cpus if limits else 0,
        pids=limits.pids if limits else 0,
    )


def in_memory_files(
    task: Task, secrets: Mapping[str, Secret], configs: Mapping[str, Config]
) -> list[InMemoryFile]:
    """The secrets and configs that the task uses. Raises TaskRejected when one has not arrived."""
    spec = task.spec.container_spec or ContainerSpec()
    files = []
    for secret in spec.secrets or ():
        stored = secrets.get(secret.secret_id)
        if stored is None:
            raise TaskRejected(f"secret {secret.secret_name} is not available on this node")
        target = secret.file or FileTarget(name=secret.secret_name)
        files.append(_file(target, "/run/secrets/", stored.spec.data))
    for config in spec.configs or ():
        held = configs.get(config.config_id)
        if held is None:
            raise TaskRejected(f"config {config.config_name} is not available on this node")
        if config.file is not None:
            files.append(_file(config.file, "/", held.spec.data))
    return files


def _file(target: FileTarget, directory: str, data: str) -> InMemoryFile:
    return InMemoryFile(
        target=target.name if target.name.startswith("/") else directory + target.name,
        data=base64.b64decode(data),
        uid=int(target.uid or 0),
        gid=int(target.gid or 0),
        mode=target.mode or 0o444,
    )


def _log(task: Task) -> LogConfig:
    driver = task.spec.log_driver
    if driver is None or not driver.name:
        return LogConfig()
    return LogConfig(driver=driver.name, options=driver.options or {})


def _decoded(profile: str) -> str:
    return base64.b64decode(profile).decode()


def _path(text: str) -> Path | None:
    return Path(text) if text else None
