"""Clients that create, update, remove and read objects at random through one manager, and record it all."""

import random
import re
import threading
import time
from typing import Any

from tests.chaos.history import Action, History, Operation, Outcome, Seen, TaskSeen
from tests.chaos.wire import Answer, Api, NoAnswer, NotSent

Json = dict[str, Any]

TOKEN = "chaos.token"
PATHS = {"config": "/configs", "secret": "/secrets", "service": "/services", "node": "/nodes"}
SLOTS = {"config": 4, "secret": 2, "service": 3}
"""Names of each kind at a time: few, so that clients meet."""
GENERATION_SECONDS = 15.0
"""After this long clients turn to fresh names, so that no object's history grows too long to check."""
BUSY = 0
"""The slot of services that have tasks; the others have none."""
PAUSE = (0.005, 0.05)
PAUSE_AFTER_FAILURE = 0.1
TIMEOUT = 5.0
NOT_DONE = "X-Shoal-Not-Done"
_AGE = re.compile(r"\bage=([0-9.]+)s")


def body_of(kind: str, name: str, token: str, replicas: int = 0) -> Json:
    """What creates an object."""
    if kind == "service":
        container = {"Image": "busybox:latest", "Command": ["sleep", "100000"], "StopGracePeriod": 10**8}
        return {
            "Name": name,
            "Labels": {TOKEN: token},
            "TaskTemplate": {"ContainerSpec": container},
            "Mode": {"Replicated": {"Replicas": replicas}},
        }
    return {"Name": name, "Data": "Y2hhb3M=", "Labels": {TOKEN: token}}


def seen_in(item: Json) -> Seen:
    """What an inspected or listed object shows."""
    return Seen(item["ID"], item["Version"]["Index"], (item["Spec"].get("Labels") or {}).get(TOKEN, ""))


def name_of(kind: str, item: Json) -> str:
    """The name that its history goes by."""
    return str(item["ID"] if kind == "node" else item["Spec"]["Name"])


class Client(threading.Thread):
    """One client. Its choices come from the seed; what it meets does not."""

    def __init__(
        self, name: str, api: Api, history: History, rng: random.Random, begun: float, tasks: bool
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._api = api
        self._history = history
        self._rng = rng
        self._begun = begun
        self._tasks = tasks
        self._items: dict[tuple[str, str], Json] = {}
        self._stop_asked = threading.Event()
        self._tokens = 0

    def finish(self) -> None:
        """Stop after the present call."""
        self._stop_asked.set()
        self.join()

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                pause = self._rng.uniform(*PAUSE) if self._step() else PAUSE_AFTER_FAILURE
                self._stop_asked.wait(pause)
        except Exception as error:  # noqa: BLE001 - a client that dies is a finding
            self._history.problems.append(f"client {self.name} ended: {type(error).__name__}: {error}")

    # --- choosing -------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """One call or two; False when it failed."""
        rng = self._rng
        if self._tasks and rng.random() < 0.04:
            return self._list_tasks()
        kind = rng.choices(("config", "service", "secret", "node"), (8, 5, 3, 2))[0]
        generation = int((time.monotonic() - self._begun) / GENERATION_SECONDS)
        if rng.random() < 0.12:
            return self._list(kind, generation, stale=rng.random() < 0.25)
        if kind == "node":
            known = [name for found, name in self._items if found == "node"]
            return self._update(kind, rng.choice(known)) if known else self._list(kind, generation, False)
        name = f"{kind}-{generation}-{rng.randrange(SLOTS[kind])}"
        action = rng.choices(("create", "update", "remove", "read"), (3, 4, 1, 2))[0]
        if action == "create":
            return self._create(kind, name)
        if action == "read":
            return self._read(kind, name, stale=rng.random() < 0.25)
        return self._update(kind, name) if action == "update" else self._remove(kind, name)

    # --- calls ----------------------------------------------------------------------------------------------

    def _create(self, kind: str, name: str) -> bool:
        token = self._token()
        replicas = 1 if self._tasks and name.endswith(f"-{BUSY}") else 0
        body = body_of(kind, name, token, replicas)
        return self._write("create", kind, name, "POST", f"{PATHS[kind]}/create", body, token=token)

    def _update(self, kind: str, name: str) -> bool:
        """Mostly read before; sometimes with what was seen long ago, which must then be refused."""
        if self._rng.random() < 0.8 and not self._read(kind, name, stale=False):
            return False
        item = self._items.get((kind, name))
        if item is None:
            return True
        token, base = self._token(), item["Version"]["Index"]
        spec = {**item["Spec"], "Labels": {**(item["Spec"].get("Labels") or {}), TOKEN: token}}
        path = f"{PATHS[kind]}/{item['ID']}/update?version={base}"
        return self._write("update", kind, name, "POST", path, spec, token=token, id=item["ID"], base=base)

    def _remove(self, kind: str, name: str) -> bool:
        item = self._items.get((kind, name))
        if item is None:
            return True
        return self._write("remove", kind, name, "DELETE", f"{PATHS[kind]}/{item['ID']}", id=item["ID"])

    def _write(
        self, action: Action, kind: str, name: str, method: str, path: str, body: object = None, **more: Any
    ) -> bool:
        invoked = time.monotonic_ns()
        returned: int | None = None
        outcome: Outcome = "unknown"
        try:
            answer = self._api.call(method, path, body)
        except NotSent:
            return False
        except NoAnswer:
            pass
        else:
            if NOT_DONE in answer.headers:
                return False
            outcome = self._outcome(answer, f"{method} {path}")
            if outcome != "unknown":
                returned = time.monotonic_ns()
            if action == "create" and outcome == "ok":
                more["id"] = answer.content["ID"]
        self._record(action, kind, name, invoked, returned, outcome, **more)
        return outcome != "unknown"

    def _outcome(self, answer: Answer, what: str) -> Outcome:
        if answer.status < 300:
            return "ok"
        if "update out of sequence" in answer.message:
            return "sequence"
        if answer.status == 409:
            return "exists"
        if answer.status == 404:
            return "missing"
        if answer.status < 500:
            self._history.problems.append(f"{what}: {answer.status} {answer.message}")
        return "unknown"

    def _read(self, kind: str, name: str, *, stale: bool) -> bool:
        """By the name; a node by its id."""
        invoked = time.monotonic_ns()
        answer = self._ask(f"{PATHS[kind]}/{name}", stale)
        if answer is None or answer.status not in (200, 404):
            return False
        item = answer.content if answer.status == 200 and name_of(kind, answer.content) == name else None
        self._saw(kind, name, item, invoked, answer, stale)
        return True

    def _list(self, kind: str, generation: int, stale: bool) -> bool:
        """Reads every name at once; what is left of older generations is removed."""
        invoked = time.monotonic_ns()
        answer = self._ask(PATHS[kind], stale)
        if answer is None or answer.status != 200:
            return False
        items = {name_of(kind, item): item for item in answer.content}
        if len(items) != len(answer.content):
            self._history.problems.append(f"two objects with one name: {answer.content}")
        names = set(items)
        for recent in range(max(0, generation - 1), generation + 1):
            names |= {f"{kind}-{recent}-{slot}" for slot in range(SLOTS.get(kind, 0))}
        for name in sorted(names):
            self._saw(kind, name, items.get(name), invoked, answer, stale)
        if not stale and kind != "node":
            for name in sorted(items):
                if int(name.split("-")[1]) < generation - 1:
                    self._remove(kind, name)
        return True

    def _list_tasks(self) -> bool:
        invoked = time.monotonic_ns()
        answer = self._ask("/tasks", stale=False)
        if answer is None or answer.status != 200:
            return False
        returned = time.monotonic_ns()
        for item in answer.content:
            index, state = item["Version"]["Index"], item["Status"]["State"]
            self._history.tasks.append(
                TaskSeen(item["ID"], index, state, item["DesiredState"], invoked, returned)
            )
        return True

    def _ask(self, path: str, stale: bool) -> Answer | None:
        try:
            return self._api.call("GET", path, headers={"Shoal-Consistency": "stale"} if stale else None)
        except (NotSent, NoAnswer):
            return None

    # --- recording ------------------------------------------------------------------------------------------

    def _saw(
        self, kind: str, name: str, item: Json | None, invoked: int, answer: Answer, stale: bool
    ) -> None:
        """A stale read is one that may have happened as long ago as the answer says."""
        if stale:
            age = _AGE.search(answer.headers.get("Shoal-Read", ""))
            if age is None:
                return
            invoked -= int(float(age[1]) * 1e9)
        elif item is not None:
            self._items[kind, name] = item
        seen = None if item is None else seen_in(item)
        self._record("read", kind, name, invoked, time.monotonic_ns(), "ok", seen=seen)

    def _record(
        self,
        action: Action,
        kind: str,
        name: str,
        invoked: int,
        returned: int | None,
        outcome: Outcome,
        **more: Any,
    ) -> None:
        operation = Operation(
            client=self.name,
            kind=kind,
            name=name,
            action=action,
            invoked=invoked,
            returned=returned,
            outcome=outcome,
            **more,
        )
        self._history.operations.append(operation)

    def _token(self) -> str:
        self._tokens += 1
        return f"{self.name}.{self._tokens}"
