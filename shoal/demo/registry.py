"""A real registry (the distribution's docker-registry package), run in the playground's client namespace."""

import time
from pathlib import Path

from cluster.errors import Unavailable
from shoal.demo.packages import download, unpack
from shoal.playground.layout import CLIENT, REGISTRY_NAME
from shoal.playground.playground import Playground

ADDRESS = f"{REGISTRY_NAME}:5000"
_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: true}}}}
http: {{addr: ":5000"}}
"""


def start(playground: Playground, cache: Path) -> None:
    """Start it and wait until it answers; it ends with the playground. Raises Unavailable."""
    directory = playground.layout.home(CLIENT) / "registry"
    directory.mkdir(parents=True, exist_ok=True)
    unpack(download(["docker-registry"], cache), directory)
    config = directory / "config.yml"
    config.write_text(_CONFIG.format(storage=directory / "storage"))
    program, log = directory / "usr/bin/docker-registry", directory / "registry.log"
    playground.run(CLIENT, ["sh", "-c", f"setsid {program} serve {config} </dev/null >{log} 2>&1 &"])
    for _ in range(200):
        if playground.run(CLIENT, ["curl", "-fs", "http://127.0.0.1:5000/v2/"]).returncode == 0:
            return
        time.sleep(0.05)
    raise Unavailable(f"the registry did not start: {log.read_text()[-500:]}")
