"""Real registries in a playground's client namespace: an open one, and one that wants a password."""

import sys
import time
from pathlib import Path

from shoal.demo import registry, web_image
from shoal.demo.main import DEFAULT_CACHE
from shoal.playground.layout import CLIENT, REGISTRY_NAME
from shoal.playground.playground import Playground

OPEN = registry.ADDRESS
LOCKED = f"{REGISTRY_NAME}:5001"
USER, PASSWORD = "alice", "wonderland"
_HTPASSWD = "$2y$05$abcdefghijklmnopqrstuuA0vov2GDneHB3.8.cv9UF9g.RdvScIW"
_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: ":5001"}}
auth: {{htpasswd: {{realm: test, path: {passwords}}}}}
"""


def start(playground: Playground) -> None:
    """Start both, over the same storage; they end with the playground."""
    registry.start(playground, DEFAULT_CACHE)
    directory = playground.layout.home(CLIENT) / "registry"
    config, passwords = directory / "locked.yml", directory / "passwords"
    config.write_text(_CONFIG.format(storage=directory / "storage", passwords=passwords))
    passwords.write_text(f"{USER}:{_HTPASSWD}\n")
    program, log = directory / "usr/bin/docker-registry", directory / "locked.log"
    playground.run(CLIENT, ["sh", "-c", f"setsid {program} serve {config} </dev/null >{log} 2>&1 &"])
    url = f"http://{USER}:{PASSWORD}@127.0.0.1:5001/v2/"
    deadline = time.monotonic() + 20
    while playground.run(CLIENT, ["curl", "-fs", url]).returncode:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def push(playground: Playground, archive: Path, reference: str) -> str:
    """Push an archive to the open registry from the client namespace; returns the manifest's digest."""
    command = [sys.executable, "-m", "shoal.demo.push", str(archive), reference]
    done = playground.run(CLIENT, command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def push_web(playground: Playground, directory: Path, version: str = "1") -> str:
    """Build nginx's image (it answers "TASK CLIENT VERSION"), push it, and return its reference."""
    reference = f"{OPEN}/test/web:{version}"
    archive = directory / f"web-{version}.tar"
    web_image.build(archive, reference, DEFAULT_CACHE, version)
    push(playground, archive, reference)
    archive.unlink()
    return reference
