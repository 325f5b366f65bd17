"""What clients of an older API version may say of a service, and what they are understood to say.

The gates are dockerd's: what a version did not have is dropped, as a client that does not know a field can't
have meant it.
"""

from msgspec.structs import replace

from cluster.errors import InvalidArgument
from cluster.spec import ContainerSpec, Mount, Privileges, ServiceSpec, TaskSpec

Version = tuple[int, int]

STATUS = (1, 41)
"""The first version in which a list of services may have their status."""
_TEMPLATING = (1, 37)


def understood(spec: ServiceSpec, version: Version) -> ServiceSpec:
    """The spec as this version of the API has it. InvalidArgument for a job before 1.41, which had none."""
    if version < (1, 41) and (spec.mode.replicated_job is not None or spec.mode.global_job is not None):
        raise InvalidArgument(
            f"jobs came with API version 1.41, and this request is of {_text(version)}: use a newer client"
        )
    return replace(spec, task_template=_task(spec.task_template, version))


def check_templating(driver: object, kind: str, version: Version) -> None:
    """Refuse templating drivers of secrets and configs in versions before 1.37, in dockerd's words."""
    if driver is not None and version < _TEMPLATING:
        raise InvalidArgument(
            f"{kind} templating is not supported on the specified API version: {_text(version)}"
        )


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _task(task: TaskSpec, version: Version) -> TaskSpec:
    if task.container_spec is not None:
        task = replace(task, container_spec=_container(task.container_spec, version))
    if version < (1, 41) and task.resources is not None and task.resources.limits is not None:
        limits = replace(task.resources.limits, pids=0)
        task = replace(task, resources=replace(task.resources, limits=limits))
    if version < (1, 40) and task.placement is not None:
        task = replace(task, placement=replace(task.placement, max_replicas=0))
    return task


def _container(container: ContainerSpec, version: Version) -> ContainerSpec:
    if version < (1, 46):
        mounts = container.mounts and [_mount(mount) for mount in container.mounts]
        container = replace(container, oom_score_adj=0, mounts=mounts)
    if version < (1, 44) and container.healthcheck is not None:
        container = replace(container, healthcheck=replace(container.healthcheck, start_interval=0))
    if version < (1, 41):
        container = replace(container, capability_add=None, capability_drop=None, ulimits=None)
    if version < (1, 40):
        configs = container.configs and [replace(config, runtime=None) for config in container.configs]
        container = replace(container, sysctls=None, configs=configs)
    if version < (1, 44) and container.privileges is not None:
        container = replace(container, privileges=_privileges(container.privileges, version))
    return container


def _privileges(privileges: Privileges, version: Version) -> Privileges:
    privileges = replace(privileges, seccomp=None, app_armor=None, no_new_privileges=False)
    if version < (1, 40) and privileges.credential_spec is not None:
        return replace(privileges, credential_spec=replace(privileges.credential_spec, config=""))
    return privileges


def _mount(mount: Mount) -> Mount:
    if mount.tmpfs_options is None:
        return mount
    return replace(mount, tmpfs_options=replace(mount.tmpfs_options, options=None))
