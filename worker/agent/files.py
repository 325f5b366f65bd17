"""The secrets and configs of a task, as the files that its container sees: their templates filled in."""

from collections.abc import Mapping

from cluster.defaults import MAX_CONFIG_SIZE
from cluster.objects import Config, Secret, Task
from cluster.payload import is_template, payload_bytes
from cluster.spec import ContainerSpec, FileTarget
from cluster.template import TemplateError
from cluster.validate_container import CONFIGS_DIRECTORY, SECRETS_DIRECTORY
from worker.agent.executor import TaskRejected
from worker.agent.template import Template
from worker.runtime.model import InMemoryFile

_MODE = 0o444
_MAX_EXPANDED = 4 * MAX_CONFIG_SIZE


class TaskFiles:
    """What one task is given, and what its templates may ask for.

    `environment` is the task's own, as its spec gives it, with its templates filled in.
    """

    def __init__(
        self,
        task: Task,
        secrets: Mapping[str, Secret],
        configs: Mapping[str, Config],
        environment: Mapping[str, str],
        template: Template,
    ) -> None:
        self._spec = task.spec.container_spec or ContainerSpec()
        self._secrets = self._found("secret", secrets)
        self._configs = self._found("config", configs)
        self._environment = environment
        self._template = template

    def in_memory(self) -> list[InMemoryFile]:
        """The files. Raises TaskRejected when one has not arrived or can't be filled in."""
        files = [self._file(target, SECRETS_DIRECTORY, stored) for target, stored in self._secrets]
        return files + [self._file(target, CONFIGS_DIRECTORY, stored) for target, stored in self._configs]

    def _found(
        self, kind: str, stored: Mapping[str, Secret] | Mapping[str, Config]
    ) -> list[tuple[FileTarget, Secret | Config]]:
        if kind == "secret":
            wanted = [(r.secret_id, r.secret_name, r.file) for r in self._spec.secrets or ()]
        else:
            wanted = [(r.config_id, r.config_name, r.file) for r in self._spec.configs or ()]
        found = []
        for id, name, target in wanted:
            held = stored.get(id)
            if held is None:
                raise TaskRejected(f"{kind} {name} is not available on this node")
            found.append((target or FileTarget(name=name or held.spec.name), held))
        return found

    def _file(self, target: FileTarget, directory: str, stored: Secret | Config) -> InMemoryFile:
        data = payload_bytes(stored.spec.data)
        if is_template(stored.spec.templating):
            data = self._filled(data)
            if len(data) > _MAX_EXPANDED:
                raise TaskRejected(f"{stored.kind} {stored.spec.name}: its template makes {len(data)} bytes")
        return InMemoryFile(
            target=target.name if target.name.startswith("/") else directory + target.name,
            data=data,
            uid=int(target.uid or 0),
            gid=int(target.gid or 0),
            mode=target.mode or _MODE,
        )

    def _filled(self, data: bytes) -> bytes:
        functions = {"secret": self._secret, "config": self._config, "env": self._env}
        text = data.decode(errors="surrogateescape")
        return self._template.expand(text, functions).encode(errors="surrogateescape")

    def _secret(self, target: str) -> str:
        return _named("secret", target, self._secrets)

    def _config(self, target: str) -> str:
        return _named("config", target, self._configs)

    def _env(self, name: str) -> str:
        return self._environment.get(name, "")


def _named(kind: str, target: str, files: list[tuple[FileTarget, Secret | Config]]) -> str:
    """What is stored for a target. Not filled in itself: one template does not run another."""
    for file, stored in files:
        if file.name == target:
            return payload_bytes(stored.spec.data).decode(errors="surrogateescape")
    raise TemplateError(f"the task has no {kind} with target {target!r}")
