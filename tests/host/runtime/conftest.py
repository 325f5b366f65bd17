"""A real runtime in a scratch directory, and a check that it leaves nothing behind."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from cluster.seams import SystemClock
from tests.support.rootfs import make_rootfs
from tests.support.runtime_conformance import MakeConfig
from worker.runtime import hybrid, syscalls
from worker.runtime.cgroups import detect
from worker.runtime.model import ContainerConfig
from worker.runtime.oci import OCIRuntime

PARENT = f"/shoal-tests/{os.getpid()}"


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image layer with busybox."""
    return make_rootfs(tmp_path_factory.mktemp("image") / "layer")


@pytest.fixture(scope="module")
def mount_namespace() -> Iterator[None]:
    """On machines with hybrid cgroups: a mount namespace in which crun works."""
    run = Path(tempfile.mkdtemp(prefix="shoal-runtime-"))
    syscalls.unshare(syscalls.CLONE_FS)
    origin = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    entered = hybrid.enter(run)
    yield
    if entered:
        syscalls.setns(origin, syscalls.CLONE_NEWNS)
        hybrid.release(run)
    os.close(origin)
    shutil.rmtree(run)


class Node:
    """The directories of one node's runtime; `runtime()` is what a newly started daemon has."""

    def __init__(self, base: Path) -> None:
        self.root, self.run = base / "containers", base / "run"
        self.started: list[OCIRuntime] = []

    async def runtime(self, **options: object) -> OCIRuntime:
        runtime = OCIRuntime(self.root, self.run, PARENT, clock=SystemClock(), **options)  # type: ignore[arg-type]
        self.started.append(runtime)
        await runtime.start()
        return runtime


def _leftovers(base: Path) -> list[str]:
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(base) in line]
    cgroups = detect()
    found += [str(path) for path in cgroups.directories(PARENT) if path.exists()]
    commands = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    found += [line for line in commands.splitlines() if str(base) in line and not line.startswith("Z")]
    return found


@pytest.fixture
async def node(tmp_path: Path, mount_namespace: None) -> AsyncIterator[Node]:
    """A node; at its end all containers are removed and nothing of them may be left."""
    node = Node(tmp_path)
    yield node
    for runtime in node.started[:-1]:
        await runtime.close()
    last = node.started[-1]
    for config, _ in last.list():
        await last.remove(config.id, force=True)
    await last.close()
    assert _leftovers(tmp_path) == []
    assert list(node.root.iterdir()) == []


@pytest.fixture
async def runtime(node: Node) -> OCIRuntime:
    """A started runtime."""
    return await node.runtime()


@pytest.fixture
def config(layer: Path) -> MakeConfig:
    """Makes configs with ids of their own."""
    numbers = count(1)

    def make(*args: str, **fields: object) -> ContainerConfig:
        number = next(numbers)
        known = {"id": f"{number:064x}", "layers": (layer,), "created_at": number}
        return ContainerConfig(args=args, **(known | fields))  # type: ignore[arg-type]

    return make
