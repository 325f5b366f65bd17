"""Stacks through docker's command and Shoal's, both on the same one; secret versions; plans; credentials."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Json, eventually
from tests.support.images import build_image
from tests.support.registries import LOCKED, OPEN, PASSWORD, USER, push

pytestmark = pytest.mark.playground

RICH = """
version: "3.13"
networks:
  front: {attachable: true, labels: {a: b}}
  back: {internal: true, ipam: {config: [{subnet: 10.77.0.0/24}]}}
  named: {name: a-name-of-its-own, driver_opts: {x.y: z}}
secrets:
  one: {file: ./secret.txt, labels: {k: v}}
configs:
  conf: {file: ./config.txt, template_driver: golang}
volumes:
  data: {labels: {v: w}}
services:
  web:
    image: busybox
    command: sleep infinity
    env_file: web.env
    environment: {A: "1", B: null, C: "x=y"}
    hostname: "w-{{.Task.Slot}}"
    networks: {front: {aliases: [www]}, named: null}
    ports: ["8080:80", "9000-9001:90-91/udp", {target: 99, published: 8999, mode: host, protocol: tcp}]
    secrets: [one, {source: one, target: again, uid: "33", gid: "33", mode: 0400}]
    configs: [{source: conf, target: /etc/conf, mode: 0440}]
    volumes: [data:/data, {type: tmpfs, target: /t, tmpfs: {size: 1024}}, {type: volume, target: /anon}, /a2]
    ulimits: {nofile: {soft: 1000, hard: 2000}, nproc: 500}
    sysctls: {net.core.somaxconn: 512}
    cap_add: [NET_ADMIN]
    cap_drop: [chown]
    extra_hosts: ["some:1.2.3.4", "other:1.2.3.5"]
    dns: [8.8.8.8]
    dns_search: [example.com]
    init: true
    user: "0:0"
    working_dir: /tmp
    stop_grace_period: 1s
    stop_signal: SIGTERM
    logging: {driver: json-file, options: {max-size: 1m}}
    healthcheck: {test: "true", interval: 1s, timeout: 2s, retries: 3, start_period: 1s}
    labels: {cl: 1}
    deploy:
      replicas: 2
      labels: [dl=1]
      update_config: {parallelism: 1, delay: 0s, failure_action: rollback, monitor: 1s, order: start-first}
      rollback_config: {parallelism: 2}
      restart_policy: {condition: any, delay: 1s, max_attempts: 9, window: 10s}
      placement:
        constraints: [node.platform.os==linux]
        preferences: [{spread: node.labels.zone}]
        max_replicas_per_node: 2
      resources: {limits: {cpus: '0.5', memory: 64M, pids: 100}, reservations: {cpus: '0.1', memory: 16M}}
  everywhere:
    image: busybox
    entrypoint: ["sleep", "infinity"]
    networks: [back]
    stop_grace_period: 0s
    deploy: {endpoint_mode: dnsrr, mode: global}
  once:
    image: busybox
    command: echo done
    deploy: {mode: replicated-job, replicas: 2, restart_policy: {condition: on-failure}}
"""

ORDERED = """
services:
  web:
    image: busybox
    command: sleep infinity
    stop_grace_period: 0s
    secrets: [key]
    depends_on:
      db: {condition: service_healthy}
      init: {condition: service_completed_successfully}
    deploy: {replicas: 2, update_config: {monitor: 0s, parallelism: 2}}
  db:
    image: busybox
    command: sh -c 'sleep 1; touch /ok; exec sleep infinity'
    stop_grace_period: 0s
    healthcheck: {test: test -f /ok, interval: 200ms, retries: 50}
  init:
    image: busybox
    command: "true"
    depends_on: [db]
    deploy: {mode: replicated-job}
secrets:
  key: {file: ./secret.txt}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with both stacks and what they need."""
    for name, text in {
        "rich.yml": RICH, "ordered.yml": ORDERED, "secret.txt": "one", "web.env": "EF=1\n",
        "config.txt": "{{.Service.Name}} {{.Task.Slot}}",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    return tmp_path


def attempt(cluster: Cluster, *words: str, config: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the shoal command against host1."""
    environment = {**os.environ, "DOCKER_CONFIG": str(config or "/nonexistent")}
    command = [
        sys.executable,
        "-m",
        "shoal.cli.main",
        "-H",
        cluster.playground.host("host1").docker_host,
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=environment)


def shoal(cluster: Cluster, *words: str, config: Path | None = None) -> str:
    done = attempt(cluster, *words, config=config)
    assert done.returncode == 0, f"shoal {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def state(cluster: Cluster) -> tuple[dict[str, Json], set[str]]:
    """The services but for their last write, and the ids of all tasks that run or have completed."""
    api = cluster.client().api
    passing = ("Version", "UpdatedAt")
    services = {
        service["Spec"]["Name"]: {key: value for key, value in service.items() if key not in passing}
        for service in api.services()
    }
    tasks = {task["ID"] for task in api.tasks() if task["DesiredState"] in ("running", "complete")}
    return services, tasks


def settled(cluster: Cluster, *services: str) -> None:
    """Wait until no update of these services is under way."""

    def done() -> bool:
        found = [cluster.inspect("service", name).get("UpdateStatus") or {} for name in services]
        return all(
            status.get("State", "completed") in ("completed", "rollback_completed") for status in found
        )

    eventually(f"{services} are not being updated", done)


def test_both_commands_make_the_same_stack_and_an_unchanged_one_restarts_nothing(
    cluster: Cluster, files: Path
) -> None:
    rich = str(files / "rich.yml")
    always = ("stack", "deploy", "--detach")
    cluster.docker(*always, "-c", rich, "s")
    web = cluster.running("s_web", 2)
    cluster.running("s_everywhere", 3)
    eventually("the job is done", lambda: len(cluster.tasks("s_once")) == 2)
    eventually(
        "both completed", lambda: {t["Status"]["State"] for t in cluster.tasks("s_once")} == {"complete"}
    )
    before = state(cluster)

    for again in (always, (*always, "--resolve-image=changed"), (*always, "--resolve-image=never")):
        cluster.docker(*again, "-c", rich, "s")
        assert state(cluster) == before
    told = shoal(cluster, "stack", "deploy", "--resolve-image", "never", rich, "s").splitlines()
    assert sorted(told) == [f"service s_{name}: unchanged" for name in ("everywhere", "once", "web")]
    assert state(cluster) == before
    assert shoal(cluster, "plan", "stack", rich, "s").splitlines() == [
        "Service s_everywhere would stay as it is: 3 tasks kept.",
        "Service s_web would stay as it is: 2 tasks kept.",
    ]

    slots = {task["Slot"] for task in web}
    assert {cluster.enter(task, "hostname") for task in web} == {f"w-{slot}" for slot in slots}
    assert cluster.enter(web[0], "cat /etc/conf") == f"s_web {web[0]['Slot']}"
    assert (
        cluster.enter(web[0], "cat /run/secrets/one; stat -c '%a %u %g' /run/secrets/again") == "one400 33 33"
    )
    assert cluster.enter(web[0], "stat -c %a /etc/conf") == "440"
    process = cluster.enter(
        web[0], "cat /proc/1/environ | tr '\\0' '\\n'; grep files /proc/1/limits; cat /etc/hosts"
    )
    for words in ("A=1", "C=x=y", "EF=1", "1000                 2000", "1.2.3.4", "1.2.3.5"):
        assert words in process
    assert cluster.enter(web[0], "cat /proc/sys/net/core/somaxconn; pwd").split()[0] == "512"
    assert shoal(cluster, "stack", "ls").splitlines()[1].split() == ["s", "3"]
    assert len(shoal(cluster, "stack", "ps", "s").splitlines()) == 8
    assert cluster.docker("stack", "services", "-q", "s").split() == [
        id[:12] for id in shoal(cluster, "stack", "services", "-q", "s").split()
    ]

    # A change of one service leaves the others alone; what the file no longer has goes with --prune.
    changed = RICH.replace('A: "1"', 'A: "2"').partition("  once:")[0]
    (files / "changed.yml").write_text(changed)
    told = shoal(
        cluster, "stack", "deploy", "--prune", "--resolve-image=never", str(files / "changed.yml"), "s"
    ).splitlines()
    assert "service s_once: removed, the file no longer has it" in told
    assert {"service s_everywhere: unchanged", "service s_web: updated"} <= set(told)
    cluster.docker("stack", "rm", "s")
    assert cluster.docker("network", "ls", "-q", "--filter", "label=com.docker.stack.namespace=s") == ""


def test_removed_and_deployed_again_at_once(cluster: Cluster, files: Path) -> None:
    (files / "small.yml").write_text(RICH.partition("  once:")[0])
    for _ in range(5):
        cluster.docker(
            "stack", "deploy", "--detach", "--resolve-image=never", "-c", str(files / "small.yml"), "s"
        )
        cluster.docker("stack", "rm", "--detach=true", "s")
    cluster.docker(
        "stack", "deploy", "--detach", "--resolve-image=never", "-c", str(files / "small.yml"), "s"
    )
    cluster.running("s_web", 2)
    cluster.running("s_everywhere", 3)


def test_order_secrets_and_plans(cluster: Cluster, files: Path) -> None:
    ordered = str(files / "ordered.yml")
    words = ("stack", "deploy", "--resolve-image=never", ordered, "o")
    assert "Service o_web would be created." in shoal(cluster, *words, "--dry-run")
    assert cluster.docker("service", "ls", "-q") == cluster.docker("secret", "ls", "-q") == ""
    told = shoal(cluster, *words, "--wait").splitlines()
    assert [line for line in told if line.endswith("created")] == [
        "network o_default: created", "secret o_key: created", "service o_db: created",
        "service o_init: created", "service o_web: created",
    ]  # fmt: skip
    assert any(line.startswith("service web: waits for db (service_healthy)") for line in told)
    first = {
        name: min(task["CreatedAt"] for task in cluster.tasks(f"o_{name}")) for name in ("db", "init", "web")
    }
    assert first["db"] < first["init"] < first["web"]

    # New content makes a version and rolls the service; the old version is there to go back to.
    (files / "secret.txt").write_text("two")
    plan = shoal(cluster, "plan", "stack", ordered, "o")
    assert "Secret o_key would get version 2." in plan
    assert "Service o_web: 2 tasks would be replaced: " in plan
    assert cluster.enter(cluster.running("o_web", 2)[0], "cat /run/secrets/key") == "one"
    assert "secret o_key: version 2, for o_web" in shoal(cluster, *words, "--wait")
    settled(cluster, "o_web")
    assert {cluster.enter(task, "cat /run/secrets/key") for task in cluster.running("o_web", 2)} == {"two"}
    names = cluster.docker("secret", "ls", "--format", "{{.Name}}").split()
    assert sorted(names) == ["o_key", "o_key.1"]
    (files / "secret.txt").write_text("three")
    said = attempt(cluster, "secret", "update", "o_key", str(files / "secret.txt"))
    assert "o_key has version 3; rolled to it: o_web" in said.stderr
    settled(cluster, "o_web")
    assert {cluster.enter(task, "cat /run/secrets/key") for task in cluster.running("o_web", 2)} == {"three"}
    eventually(
        "the version before the last is gone",
        lambda: (
            sorted(cluster.docker("secret", "ls", "--format", "{{.Name}}").split()) == ["o_key", "o_key.2"]
        ),
    )
    cluster.docker("service", "rollback", "--detach", "o_web")
    eventually(
        "it is rolled back",
        lambda: cluster.inspect("service", "o_web")["UpdateStatus"]["State"] == "rollback_completed",
    )
    assert {cluster.enter(task, "cat /run/secrets/key") for task in cluster.running("o_web", 2)} == {"two"}
    row = next(line for line in shoal(cluster, "secret", "ls").splitlines() if " o_key " in line)
    assert row.split()[2] == "3"

    # Plans of single services: nothing changes.
    settled(cluster, "o_web")
    before = state(cluster)
    assert "fit nowhere" in shoal(
        cluster, "plan", "service", "update", "o_web", "--constraint-add", "node.role==none"
    )
    assert "3 tasks would start" in shoal(cluster, "plan", "service", "scale", "o_web=5")
    assert "2 tasks would stop" in shoal(cluster, "plan", "service", "rm", "o_web")
    assert "would be created" in shoal(
        cluster, "plan", "service", "create", "--no-resolve-image", "--name", "n", "busybox"
    )
    assert state(cluster) == before

    removed = shoal(cluster, "stack", "rm", "--wait", "o").splitlines()
    services = [line.split()[1].rstrip(":") for line in removed if line.startswith("service")]
    assert services == ["o_web", "o_init", "o_db"]
    assert cluster.docker("secret", "ls", "-q") == ""


def test_mistakes_in_files_are_told_with_their_place(cluster: Cluster, files: Path) -> None:
    bad = files / "bad.yml"
    bad.write_text("services:\n  web:\n    image: busybox\n    deploy: {replicas: many}\n")
    done = attempt(cluster, "stack", "deploy", str(bad), "s")
    assert done.returncode == 2
    assert f"{bad}:4: services.web.deploy.replicas: this is a text" in done.stderr
    bad.write_text("services: {web: {image: busybox, networks: [n]}}\nnetworks: {n: {external: true}}\n")
    done = attempt(cluster, "stack", "deploy", str(bad), "s")
    assert f"{bad}:2: networks.n: network 'n' is declared as external, but could not be found" in done.stderr
    assert cluster.docker("service", "ls", "-q") == ""


@pytest.mark.usefixtures("web_image")
def test_credentials_are_refreshed_without_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    def login(password: str) -> None:
        secret = base64.b64encode(f"{USER}:{password}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {LOCKED: {"auth": secret}}}))

    push(cluster.playground, build_image(tmp_path, f"{OPEN}/kept/tool:1"), f"{OPEN}/kept/tool:1")
    login(PASSWORD)
    create = (
        "service", "create", "--name", "tool", "--with-registry-auth", "--constraint", "node.hostname!=host2",
        "--replicas-max-per-node", "1", "--replicas", "2", "--stop-grace-period", "0s",
        "--restart-delay", "300ms", "--detach", f"{LOCKED}/kept/tool:1", "sleep", "infinity",
    )  # fmt: skip
    shoal(cluster, *create, config=tmp_path)
    tasks: list[Json] = cluster.running("tool", 2)
    before = state(cluster)[1]
    login("expired")
    shoal(cluster, "service", "refresh-auth", "tool", config=tmp_path)
    assert state(cluster)[1] == before
    image = tasks[0]["Spec"]["ContainerSpec"]["Image"]
    assert "@sha256:" in image

    # A task on a node that has not the image yet pulls with the newest credential, which is refused.
    cluster.update("tool", "--constraint-rm", "node.hostname!=host2", "--replicas", "3")
    complaint = cluster.complaint("tool")
    assert "it may have expired" in complaint
    assert "shoal service refresh-auth tool" in complaint
    running = {task["ID"] for task in cluster.tasks_in("tool", "running")}
    login(PASSWORD)
    cluster.docker("--config", str(tmp_path), "service", "update", "--detach", "--with-registry-auth", "tool")
    after = {task["ID"] for task in cluster.running("tool", 3)}
    assert running < after
