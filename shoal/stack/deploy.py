"""Deploying a stack: what is missing is made, what differs is updated, what has not changed is left alone.

Networks first, then secrets and configs, then services, each when what it depends on is far enough. Broken
off at any point, the same command goes on from there.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cluster.errors import NotFound, ShoalError
from shoal.cli.client import Engine, Json
from shoal.cli.pinning import pin
from shoal.stack.conditions import Progress, progress
from shoal.stack.namespace import IMAGE
from shoal.stack.networks import PREDEFINED
from shoal.stack.node import ComposeError
from shoal.stack.payloads import Payload
from shoal.stack.services import Service
from shoal.stack.stack import Stack
from shoal.stack.state import Present, name_of

ALWAYS, CHANGED, NEVER = RESOLVE = ("always", "changed", "never")
_POLL = 0.3


@dataclass
class Options:
    """How to deploy. `auth` gives X-Registry-Auth for an image, or ""; `timeout` is seconds for each wait."""

    prune: bool = False
    resolve: str = ALWAYS
    auth: Callable[[str], str] = lambda image: ""
    timeout: float = 600.0
    tell: Callable[[str], None] = print
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Deployment:
    """One run of `stack deploy`."""

    engine: Engine
    stack: Stack
    options: Options
    services: dict[str, str] = field(default_factory=dict)
    """Ids of the services that are deployed, by their own names."""

    def run(self) -> None:
        """Deploy. Raises ComposeError for what the file needs and does not exist, ShoalError for refusals."""
        present = Present.of(self.engine, self.stack.namespace)
        self._check_outside()
        if self.options.prune:
            self._prune(present)
        self._make_networks(present)
        secrets = {p.name: self._payload("secret", p) for p in self.stack.secrets}
        configs = {p.name: self._payload("config", p) for p in self.stack.configs}
        services = {name_of(found): found for found in present.services}
        for service in self.stack.services:
            self._wait_for_dependencies(service)
            spec = with_ids(service.spec, secrets, configs)
            self.services[service.name] = self._service(service, spec, services.get(spec["Name"]))

    def proposal(self) -> Json:
        """What `run` would ask for, for POST /shoal/plan. Images stay as the services have them pinned."""
        self._check_outside()
        services = []
        present = {name_of(found): found for found in Present.of(self.engine, self.stack.namespace).services}
        for service in self.stack.services:
            spec = copy.deepcopy(service.spec)
            if found := present.get(spec["Name"]):
                self._keep_image(service, spec, found["Spec"], "")
            services.append(spec)
        return {
            "Networks": [{"Name": name, **spec} for name, spec in self.stack.networks.items()],
            "Secrets": [p.spec for p in self.stack.secrets if p.spec is not None],
            "Configs": [p.spec for p in self.stack.configs if p.spec is not None],
            "Services": services,
        }

    def _tell(self, words: str) -> None:
        self.options.tell(words)

    # --- networks, secrets, configs -----------------------------------------------------------------------

    def _check_outside(self) -> None:
        for name, node in self.stack.outside_networks.items():
            if name in PREDEFINED:
                continue
            found = [n for n in self.engine.get("/networks", filters={"name": [name]}) if n["Name"] == name]
            if not found:
                raise ComposeError(
                    node,
                    f"network {name!r} is declared as external, but could not be found: create it with "
                    f"`shoal network create -d overlay {name}`",
                )
            if all(n["Scope"] != "swarm" for n in found):
                raise ComposeError(
                    node,
                    f"network {name!r} is declared as external, but it is not in the right scope: "
                    f"{found[0]['Scope']} instead of swarm",
                )

    def _make_networks(self, present: Present) -> None:
        there = {name_of(found) for found in present.networks}
        for name, spec in sorted(self.stack.networks.items()):
            if name not in there:
                self._tell(f"network {name}: created")
                self.engine.post("/networks/create", {"Name": name, **spec})

    def _payload(self, kind: str, payload: Payload) -> str:
        """The id of the secret or config, which has the file's content afterwards."""
        found = self.find(kind, payload.name)
        if payload.spec is None:
            if found is None:
                raise ComposeError(
                    payload.node, f"{kind} {payload.name!r} is declared as external, but could not be found"
                )
            return str(found["ID"])
        if found is None:
            self._tell(f"{kind} {payload.name}: created")
            return str(self.engine.post(f"/{kind}s/create", payload.spec)["ID"])
        if "Data" not in payload.spec:  # a driver's
            return str(found["ID"])
        made = self.engine.post(f"/shoal/{kind}s/{found['ID']}/versions", payload.spec)
        if made["ID"] != found["ID"]:
            rolled = ", ".join(made["Services"])
            self._tell(
                f"{kind} {payload.name}: version {made['Version']}" + (f", for {rolled}" if rolled else "")
            )
        return str(made["ID"])

    def find(self, kind: str, name: str) -> Json | None:
        """The secret or config of exactly this name."""
        for found in self.engine.get(f"/{kind}s", filters={"name": [name]}) or ():
            if name_of(found) == name:
                return dict(found)
        return None

    # --- services -----------------------------------------------------------------------------------------

    def _service(self, service: Service, spec: Json, found: Json | None) -> str:
        auth = self.options.auth(service.image)
        headers = {"X-Registry-Auth": auth} if auth else {}
        if found is None:
            if self.options.resolve != NEVER:
                pin(self.engine, spec, auth)
            made = self.engine.request("POST", "/services/create", body=spec, headers=headers)
            self._tell(f"service {spec['Name']}: created")
            return str(made["ID"])
        # A secret's new version may just have written it.
        found = dict(self.engine.get(f"/services/{found['ID']}"))
        self._keep_image(service, spec, found["Spec"], auth)
        path = f"/services/{found['ID']}/update"
        query = {"version": found["Version"]["Index"]}
        self.engine.request("POST", path, body=spec, headers=headers, query=query)
        now = self.engine.get(f"/services/{found['ID']}")
        same = now["Spec"] == found["Spec"]
        self._tell(f"service {spec['Name']}: {'unchanged' if same else 'updated'}")
        return str(found["ID"])

    def _keep_image(self, service: Service, spec: Json, old: Json, auth: str) -> None:
        """Pin the image as asked for; else keep the one that the same name was pinned to before."""
        spec["TaskTemplate"]["ForceUpdate"] = old["TaskTemplate"].get("ForceUpdate", 0)
        same = (old.get("Labels") or {}).get(IMAGE) == service.image
        wanted = self.options.resolve == ALWAYS or (self.options.resolve == CHANGED and not same)
        if (wanted and pin(self.engine, spec, auth)) or not same:
            return
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = old["TaskTemplate"]["ContainerSpec"]["Image"]
        if platforms := (old["TaskTemplate"].get("Placement") or {}).get("Platforms"):
            spec["TaskTemplate"]["Placement"]["Platforms"] = platforms

    def _prune(self, present: Present) -> None:
        kept = {service.spec["Name"] for service in self.stack.services}
        for found in present.services:
            if name_of(found) not in kept:
                self.engine.delete(f"/services/{found['ID']}")
                self._tell(f"service {name_of(found)}: removed, the file no longer has it")

    # --- order --------------------------------------------------------------------------------------------

    def _wait_for_dependencies(self, service: Service) -> None:
        for other, condition in service.depends_on.items():
            self._wait_for(service.name, other, condition)

    def _wait_for(self, name: str, other: str, condition: str) -> None:
        deadline = self.options.clock() + self.options.timeout
        told = False
        while True:
            now = self._progress(other, condition)
            if now.met:
                return
            if now.hopeless:
                raise ShoalError(f"service {name} depends on {other}, which will not get there: {now.words}")
            if not told:
                self._tell(f"service {name}: waits for {other} ({condition}): {now.words}")
                told = True
            if self.options.clock() > deadline:
                raise ShoalError(
                    f"service {name} waited {self.options.timeout:.0f} s for {other} ({condition}): "
                    f"{now.words}. What is deployed stays; the same command goes on from here"
                )
            self.options.sleep(_POLL)

    def _progress(self, other: str, condition: str) -> Progress:
        id = self.services[other]
        try:
            listed = self.engine.get("/services", filters={"id": [id]}, status=True)
            tasks = self.engine.get("/tasks", filters={"service": [id], "_up-to-date": ["true"]})
        except ShoalError as error:
            if error.status < 500:
                raise
            return Progress(False, str(error))  # as at a change of leader
        if not listed:
            raise NotFound(f"service {other} was removed meanwhile")
        return progress(condition, listed[0], tasks)


def with_ids(spec: Json, secrets: Mapping[str, str], configs: Mapping[str, str]) -> Json:
    """The specification with the ids of the secrets and configs that it names."""
    spec = copy.deepcopy(spec)
    container = spec["TaskTemplate"]["ContainerSpec"]
    for reference in container["Secrets"]:
        reference["SecretID"] = secrets[reference["SecretName"]]
    for reference in container["Configs"]:
        reference["ConfigID"] = configs[reference["ConfigName"]]
    return spec
