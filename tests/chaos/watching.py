"""Readers of GET /events, one for each manager, that record every stream from its beginning to its end."""

import contextlib
import http.client
import json
import socket
import threading
import time

from cluster.events import INDEX_HEADER, LOST
from tests.chaos.history import Change, History, Stream
from tests.chaos.wire import Api, NoAnswer, NotSent

PAUSE = 0.1


class Watcher(threading.Thread):
    """Follows one manager's events, and follows them again when a stream ends."""

    def __init__(self, manager: str, api: Api, history: History) -> None:
        super().__init__(name=f"events of {manager}", daemon=True)
        self._manager = manager
        self._api = api
        self._history = history
        self._stop_asked = threading.Event()
        self._socket: socket.socket | None = None
        self.stream: Stream | None = None
        """The one that is being read."""

    def finish(self) -> None:
        """End the present stream; it counts as open."""
        self._stop_asked.set()
        if (sock := self._socket) is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                sock.shutdown(socket.SHUT_RDWR)
        self.join()

    def has_told(self, index: int) -> bool:
        """Whether the present stream has told everything up to that index."""
        stream = self.stream
        return stream is not None and (
            stream.after >= index or any(change.version >= index for change in stream.changes[-50:])
        )

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                with contextlib.suppress(NotSent, NoAnswer):
                    self._follow()
                self.stream = None
                self._stop_asked.wait(PAUSE)
        except Exception as error:  # noqa: BLE001 - a reader that dies is a finding
            self._history.problems.append(f"{self.name} ended: {type(error).__name__}: {error}")

    def _follow(self) -> None:
        with self._api.stream("/events") as (response, sock):
            if response.status != 200:
                response.read()
                return
            after = response.headers.get(INDEX_HEADER)
            if after is None:
                return  # this node's manager is not there yet
            stream = Stream(self._manager, int(after))
            self._history.streams.append(stream)
            self.stream, self._socket = stream, sock
            said = False
            try:
                pending = b""
                while piece := response.read1(1 << 16):
                    *lines, pending = (pending + piece).split(b"\n")
                    for line in lines:
                        said = self._take(stream, json.loads(line))
                end = "said" if said else "silent"
            except (OSError, http.client.HTTPException):
                end = "said" if said else "broken"
            stream.end = "open" if self._stop_asked.is_set() else end  # type: ignore[assignment]

    def _take(self, stream: Stream, event: dict[str, object]) -> bool:
        """Add an event; True when it is the line that says that others are lost."""
        actor = event["Actor"]
        assert isinstance(actor, dict)
        attributes = actor["Attributes"]
        if event["Action"] == LOST:
            return True
        if event["scope"] != "swarm":
            return False  # the node's own: no history is kept of these
        change = Change(
            kind=str(event["Type"]),
            id=actor["ID"],
            action=str(event["Action"]),
            name=attributes["name"],
            version=int(attributes["version"]),
            old=int(attributes.get("version.old", 0)),
            at=int(str(event["timeNano"])),
        )
        stream.changes.append(change)
        return False


def wait_told(watchers: list[Watcher], index: int, seconds: float) -> list[str]:
    """Wait until all watchers have told that index; the names of those that have not."""
    deadline = time.monotonic() + seconds
    while late := [watcher.name for watcher in watchers if not watcher.has_told(index)]:
        if time.monotonic() > deadline:
            return late
        time.sleep(0.05)
    return []
