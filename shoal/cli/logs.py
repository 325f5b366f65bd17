"""Reading logs of services and containers."""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import click

from shoal.cli.client import Json, log_frames
from shoal.cli.session import Session
from shoal.cli.tasks import task_name

_DETAILS = re.compile(rb"(?:(?P<time>\d{4}-\S+Z) )?(?P<details>[A-Za-z][^ =]*=\S*) (?P<text>.*)", re.DOTALL)
_TASK_LABEL = "com.docker.swarm.task.id"


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that shows logs."""
    for option in (
        click.option("--since", help="Only lines since this Unix time or RFC 3339 timestamp."),
        click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written."),
        click.option("-n", "--tail", default="all", show_default=True, help="Only so many last lines."),
        click.option("-f", "--follow", is_flag=True, help="Go on with new lines."),
    ):
        command = option(command)
    return command


def _query(options: Mapping[str, Any]) -> dict[str, object]:
    wanted = {name: options[name] for name in ("follow", "timestamps", "tail", "since")}
    return {"stdout": True, "stderr": True} | wanted


def split_details(line: bytes) -> tuple[dict[str, str], bytes]:
    """A line's details, such as its task, and the rest, with its timestamp if it has one."""
    match = _DETAILS.fullmatch(line)
    if match is None:
        return {}, line
    details = dict(
        parse_qsl(match["details"].decode(errors="replace").replace(",", "&"), keep_blank_values=True)
    )
    time = match["time"] + b" " if match["time"] else b""
    return details, time + match["text"]


def _write(stream: int, data: bytes) -> None:
    out = sys.stderr.buffer if stream == 2 else sys.stdout.buffer
    out.write(data)
    out.flush()


def stream_service_logs(session: Session, service: Json, options: Mapping[str, Any]) -> None:
    """Print the lines of all tasks of a service, each with its task and node."""
    names: dict[str, str] = {}

    def prefix(task_id: str) -> str:
        if task_id not in names:
            for task in session.engine.get("/tasks", filters={"service": [service["ID"]]}):
                label = f"{task_name(task, {service['ID']: service})}.{task['ID'][:12]}"
                names[task["ID"]] = f"{label}@{session.node_name(task.get('NodeID', ''))}"
        return names.setdefault(task_id, task_id)

    query = _query(options) | {"details": True}
    with session.engine.stream("GET", f"/services/{service['ID']}/logs", query=query) as response:
        for stream, line in log_frames(response):
            details, text = split_details(line)
            task = prefix(details.get(_TASK_LABEL, ""))
            _write(stream, f"{task}    | ".encode() + text)


def stream_container_logs(session: Session, container: str, options: Mapping[str, Any]) -> None:
    """Print the lines of one container; one with a terminal has a single raw stream."""
    found = session.engine.get(f"/containers/{container}/json")
    with session.engine.stream("GET", f"/containers/{found['Id']}/logs", query=_query(options)) as response:
        if found["Config"].get("Tty"):
            while data := response.read1(65536):
                _write(1, data)
        else:
            for stream, line in log_frames(response):
                _write(stream, line)
