"""Times and names as sentences say them."""

from cluster.objects import Node, Task
from cluster.seams import SECOND
from manager.store import View


def span(nanoseconds: int) -> str:
    """A length of time in one unit: `0.4 s`, `12 s`, `5 min`, `3 h`, `2 days`."""
    seconds = max(0, nanoseconds) / SECOND
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def many(count: int, what: str) -> str:
    """A count with its noun: `1 time`, `2 times`."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def host(view: View, node_id: str) -> str:
    """A node's hostname, or its id when it has none or is gone."""
    node = view.get(Node, node_id)
    return node.description.hostname if node is not None and node.description.hostname else node_id


def place(task: Task) -> str:
    """What `docker service ps` calls a task: `web.3`."""
    return task.name.removesuffix(f".{task.id}")


def sentence(words: str) -> str:
    """The words as a sentence: first letter large, a full stop at the end."""
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")
