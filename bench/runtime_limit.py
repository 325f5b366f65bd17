"""How near the runtime is to what conmon and crun can do: start and remove N sleeping containers.

Raw: overlay mount, config.json, conmon + crun create + start from 1, 2 and 4 threads, nothing else.
Then OCIRuntime for the same. Needs root, crun, conmon, busybox. Usage: python -m bench.runtime_limit [N]
"""

import asyncio
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from cluster.seams import SystemClock
from tests.support.rootfs import make_rootfs
from worker.runtime import bundle, hybrid, launch, rootfs, spawn, syscalls
from worker.runtime.cgroups import detect
from worker.runtime.model import ContainerConfig
from worker.runtime.oci import OCIRuntime, find_program
from worker.runtime.users import User

PARENT = f"/shoal-bench-{os.getpid()}"


def cpu_seconds() -> float:
    """CPU time of this process and of its ended children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def raw(base: Path, layer: Path, count: int, threads: int, plain: bool) -> tuple[float, float]:
    """Seconds to start and to remove `count` containers with conmon and crun alone."""
    cgroups = detect()
    run = base / "run"
    run.mkdir(parents=True)
    syscalls.mount("tmpfs", str(run), "tmpfs")  # as /run is on real machines
    programs = spawn.Programs(find_program("conmon"), find_program("crun"), run / "oci")
    exits = run / "exits"
    exits.mkdir()
    host = launch.inspect_host(cgroups)
    etc = base / "etc"
    etc.mkdir(exist_ok=True)
    for name in ("hostname", "hosts", "resolv.conf"):
        (etc / name).touch()

    def start(number: int) -> int:
        id = f"{number:064x}"
        home = base / id
        for name in ("upper", "work", "rootfs"):
            (home / name).mkdir(parents=True)
        rootfs.mount_overlay((layer,), home / "upper", home / "work", home / "rootfs")
        config = ContainerConfig(id=id, args=("sleep", "1000"), layers=(layer,))
        sources = bundle.Sources(
            home / "rootfs", etc / "hostname", etc / "hosts", etc / "resolv.conf", base / "files"
        )
        data = bundle.build(config, User(uid=0, gid=0), host, sources, f"{PARENT}/{id}")
        if plain:
            spec = json.loads(data)
            spec["linux"].pop("seccomp")
            spec["mounts"] = [m for m in spec["mounts"] if m["type"] not in ("cgroup", "bind")]
            data = json.dumps(spec).encode()
        (home / "config.json").write_bytes(data)
        pid = spawn.start_conmon(
            programs,
            home,
            [
                *("-c", id, "-u", id, "-n", id, "-l", f"k8s-file:{home}/log", "--no-sync-log", "-p"),
                *(f"{home}/pid", "--exit-dir", str(exits), "--full-attach"),
            ],
        )
        spawn.must_run(programs.command("start", id))
        return pid

    def remove(number: int, pid: int) -> None:
        id = f"{number:064x}"
        os.kill(pid, 9)
        while not (exits / id).exists():
            time.sleep(0.001)
        spawn.must_run(programs.command("delete", id))
        syscalls.unmount(str(base / id / "rootfs"))
        shutil.rmtree(base / id)

    with spawn.thread_pool(threads) as pool:
        begun = time.perf_counter()
        pids = list(pool.map(start, range(count)))
        started = time.perf_counter()
        list(pool.map(remove, range(count), pids))
        ended = time.perf_counter()
    cgroups.remove(PARENT)
    syscalls.unmount(str(run))
    shutil.rmtree(base)
    return started - begun, ended - started


async def ours(base: Path, layer: Path, count: int, workers: int) -> tuple[float, float, float, float]:
    """The same through OCIRuntime; also this process's own CPU seconds for either part."""
    run = base / "run"
    run.mkdir(parents=True)
    syscalls.mount("tmpfs", str(run), "tmpfs")
    runtime = OCIRuntime(base / "containers", run, PARENT, clock=SystemClock(), workers=workers)
    await runtime.start()

    async def start(number: int) -> None:
        id = f"{number:064x}"
        await runtime.create(ContainerConfig(id=id, args=("sleep", "1000"), layers=(layer,)))
        await runtime.start_container(id)

    begun, used = time.perf_counter(), cpu_seconds()
    await asyncio.gather(*(start(number) for number in range(count)))
    started, used_start = time.perf_counter(), cpu_seconds()
    await asyncio.gather(*(runtime.remove(f"{number:064x}", force=True) for number in range(count)))
    ended, used_end = time.perf_counter(), cpu_seconds()
    await runtime.close()
    syscalls.unmount(str(run))
    shutil.rmtree(base)
    return started - begun, ended - started, used_start - used, used_end - used_start


def main() -> None:
    """Print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    base = Path(tempfile.mkdtemp(prefix="shoal-bench-"))
    if hybrid.needed():
        # In a child, so that the mount namespace ends with it.
        if os.fork() == 0:
            hybrid.enter(base / "ns")
            measure(base, count)
            os._exit(0)
        os.wait()
        hybrid.release(base / "ns")
    else:
        measure(base, count)
    shutil.rmtree(base)


def measure(base: Path, count: int) -> None:
    """Run everything."""
    layer = make_rootfs(base / "layer")
    print(f"{count} sleeping containers        start s   per s   remove s   own CPU ms per container")
    for plain in (True, False):
        what = "no seccomp, fewer mounts" if plain else "our config.json"
        for threads in (1, 2, 4):
            start, remove = raw(base / "raw", layer, count, threads, plain)
            print(
                f"raw, {threads} threads, {what:26}{start:8.2f}{count / start:8.0f}{remove:10.2f}", flush=True
            )
    for workers in (1, 2, 4, 8):
        start, remove, used, used_remove = asyncio.run(ours(base / "ours", layer, count, workers))
        own = f"{used / count * 1e3:.1f} + {used_remove / count * 1e3:.1f}"
        print(
            f"OCIRuntime, {workers} workers {'':20}{start:8.2f}{count / start:8.0f}{remove:10.2f}   {own}",
            flush=True,
        )


if __name__ == "__main__":
    main()
