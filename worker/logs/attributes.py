"""What a container's log options add to each line, for `docker logs --details`: labels, variables, a tag."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote_plus

from cluster import log_tag
from cluster.pattern import compiled
from cluster.template import TemplateError
from worker.runtime.model import ContainerConfig


def attributes(config: ContainerConfig) -> dict[str, str]:
    """The attributes, by name. A tag counts only when one is asked for, as with dockerd's json-file."""
    options = config.log.options
    variables = dict(item.partition("=")[::2] for item in config.env)
    found = _chosen(config.labels, options, "labels") | _chosen(variables, options, "env")
    if options.get("tag"):
        found["tag"] = tag(config)
    return found


def tag(config: ContainerConfig) -> str:
    """The log's tag, its template filled in. Raises TemplateError."""
    return log_tag.tag(
        config.log.options.get("tag", ""),
        id=config.id,
        name=config.name,
        image_id=config.image_id,
        image_name=config.image_name,
        command=" ".join(config.args),
        labels=config.labels,
    )


def tag_or_id(config: ContainerConfig) -> str:
    """The tag, or the short id when its template can't be filled in any more."""
    try:
        return tag(config)
    except TemplateError:
        return config.id[:12]


def in_a_line(found: Mapping[str, str]) -> str:
    """As dockerd writes them before a line, in the order of their names."""
    return ",".join(f"{quote_plus(key)}={quote_plus(found[key])}" for key in sorted(found))


def _chosen(values: Mapping[str, str], options: Mapping[str, str], which: str) -> dict[str, str]:
    names: Iterable[str] = filter(None, options.get(which, "").split(","))
    found = {name: values[name] for name in names if name in values}
    if pattern := options.get(f"{which}-regex"):
        expression = compiled(pattern)
        found |= {name: value for name, value in values.items() if expression.search(name)}
    return found
