"""Restarts of the daemon, power loss, memory limits, files and mounts, logs."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from cluster.errors import InvalidArgument
from cluster.seams import SECOND, SystemClock, system_random
from cluster.spec import HealthConfig, Mount, TmpfsOptions, VolumeOptions
from tests.host.runtime.conftest import PARENT, Node
from tests.support.runtime_conformance import MakeConfig
from worker.health import HealthSupervisor, effective_check
from worker.logs.files import log_files
from worker.logs.reader import LogQuery
from worker.runtime.directory import Layout
from worker.runtime.launch import find_init
from worker.runtime.model import (
    ContainerState,
    ContainerStatus,
    HealthStatus,
    InMemoryFile,
    LogConfig,
    ResourceLimits,
    encode_record,
)
from worker.runtime.oci import OCIRuntime
from worker.volumes.mounts import resolve_mounts
from worker.volumes.store import VolumeStore

pytestmark = pytest.mark.host


async def text_of(runtime: OCIRuntime, id: str, query: LogQuery = LogQuery()) -> str:  # noqa: B008
    return b"".join([entry.data async for entry in runtime.logs(id, query)]).decode()


async def test_a_restarted_daemon_adopts(node: Node, config: MakeConfig) -> None:
    first = await node.runtime()
    lives, ends = config("sleep", "1000"), config("sh", "-c", "sleep 0.3; exit 9")
    for made in (lives, ends):
        await first.create(made)
        await first.start_container(made.id)
    before = first.get(lives.id)[1]
    await first.close()
    layout = Layout(node.root, node.run)
    while not layout.of(ends.id).exit_file.exists():
        await asyncio.sleep(0.02)
    second = await node.runtime()
    after = second.get(lives.id)[1]
    assert after == before
    assert second.get(ends.id)[1].exit_code == 9
    assert second.get(ends.id)[1].status is ContainerStatus.EXITED
    assert (await second.exec(lives.id, ["true"])).exit_code == 0
    await second.stop(lives.id, 0)
    assert second.get(lives.id)[1].exit_code == 137


async def test_after_a_power_loss(node: Node, config: MakeConfig) -> None:
    first = await node.runtime()
    made = config("sleep", "1000")
    await first.create(made)
    await first.start_container(made.id)
    state = first.get(made.id)[1]
    await first.close()
    assert state.process is not None
    # The same pid lives, but in another boot: as after a restart of the machine, when it is someone else's.
    process = msgspec.structs.replace(state.process, boot_id="another boot")
    lost = msgspec.structs.replace(state, process=process)
    (node.root / made.id / "state.json").write_bytes(encode_record(lost))
    torn = node.root / ("e" * 64)
    torn.mkdir()
    (torn / "container.json").write_text('{"id": "ee')
    second = await node.runtime()
    after = second.get(made.id)[1]
    assert (after.status, after.exit_code) == (ContainerStatus.EXITED, 255)
    assert after.error
    assert not torn.exists()
    await second.remove(made.id)  # with the process that was believed dead
    assert not Path(f"/proc/{state.pid}").exists()


async def test_an_ended_monitor_is_noticed(runtime: OCIRuntime, config: MakeConfig, node: Node) -> None:
    made = config("sleep", "1000")
    await runtime.create(made)
    await runtime.start_container(made.id)
    monitor = int((Layout(node.root, node.run).of(made.id).bundle / "conmon.pid").read_text())
    os.kill(monitor, 9)
    os.kill(runtime.get(made.id)[1].pid, 9)
    state = await runtime.wait(made.id)
    assert (state.exit_code, state.status) == (255, ContainerStatus.EXITED)
    assert "monitor" in state.error


async def test_out_of_memory(runtime: OCIRuntime, config: MakeConfig) -> None:
    made = config(
        "sh", "-c", "x=a; while :; do x=$x$x; done", resources=ResourceLimits(memory=16 << 20, pids=50)
    )
    await runtime.create(made)
    await runtime.start_container(made.id)
    state = await runtime.wait(made.id)
    assert state.oom_killed
    assert state.exit_code == 137


async def test_limits_reach_the_kernel(runtime: OCIRuntime, config: MakeConfig) -> None:
    made = config("sleep", "1000", resources=ResourceLimits(memory=64 << 20, nano_cpus=500_000_000, pids=33))
    await runtime.create(made)
    await runtime.start_container(made.id)
    found = {}
    for line in Path(f"/proc/{runtime.get(made.id)[1].pid}/cgroup").read_text().splitlines():
        assert line.endswith(f"{PARENT}/{made.id}")
    names = ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max")
    for top in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        for name in names:
            file = top / f"{PARENT.lstrip('/')}/{made.id}/{name}"
            if file.exists():
                found[name.partition(".")[0]] = file.read_text().split()[0]
    assert found == {"memory": str(64 << 20), "cpu": "50000", "pids": "33"}


async def test_mounts(runtime: OCIRuntime, config: MakeConfig, tmp_path: Path) -> None:
    volumes = VolumeStore(tmp_path / "volumes", SystemClock(), system_random())
    bound = tmp_path / "bound"
    bound.mkdir()
    (bound / "file").write_text("bound\n")
    mounts = [
        Mount(type="bind", source=str(bound), target="/bound", read_only=True),
        Mount(type="volume", source="named", target="/data"),
        Mount(type="volume", source="bare", target="/bare", volume_options=VolumeOptions(no_copy=True)),
        Mount(type="tmpfs", target="/scratch", tmpfs_options=TmpfsOptions(size_bytes=1 << 20, mode=0o700)),
    ]
    made = config()
    points = resolve_mounts(made.id, mounts, ["/anonymous"], volumes)
    secret = InMemoryFile(target="/run/secrets/key", data=b"s3cret", uid=1000, gid=1001, mode=0o400)
    script = (
        "cat /bound/file /data/from-image; touch /bound/x 2>/dev/null || echo read-only; ls /bare | wc -l;"
        "stat -c '%a %F' /scratch; df -k /scratch | tail -1 | awk '{print $2}'; cat /run/secrets/key; echo;"
        "stat -c '%u %g %a' /run/secrets/key; touch /anonymous/here /data/kept;"
        "cat /etc/hosts; touch /x || echo ro"
    )
    made = config(
        "sh",
        "-c",
        "exec 2>&1; " + script,
        mounts=points,
        files=(secret,),
        hosts="10.0.0.1 me\n",
        read_only=True,
    )
    await runtime.create(made)
    stored = (runtime.log_path(made.id).parent / "container.json").read_bytes()
    assert b"s3cret" not in stored
    await runtime.start_container(made.id)
    await runtime.wait(made.id)
    lines = (await text_of(runtime, made.id)).splitlines()
    assert lines == [
        "bound", "image", "read-only", "0", "700 directory", "1024", "s3cret", "1000 1001 400", "10.0.0.1 me",
        "touch: /x: Read-only file system", "ro",
    ]  # fmt: skip
    assert sorted(path.name for path in volumes.get("named").path.iterdir()) == ["from-image", "kept"]
    missing = Mount(type="bind", source="/no/such", target="/x")
    with pytest.raises(InvalidArgument, match="bind source path does not exist: /no/such"):
        resolve_mounts("c", [missing], [], volumes)


async def test_init_needs_a_static_init(runtime: OCIRuntime, config: MakeConfig) -> None:
    made = config("sh", "-c", "cat /proc/1/cmdline", init=True)
    await runtime.create(made)
    if find_init() is None:
        with pytest.raises(InvalidArgument, match="install the package tini"):
            await runtime.start_container(made.id)
    else:
        await runtime.start_container(made.id)
        await runtime.wait(made.id)
        assert "docker-init" in await text_of(runtime, made.id)


async def test_many_layers(runtime: OCIRuntime, config: MakeConfig, layer: Path, tmp_path: Path) -> None:
    tops = []
    for number in range(100):
        top = tmp_path / f"layer-with-a-name-that-fills-the-page-{number:03}"
        top.mkdir()
        (top / "which").write_text(f"{number}\n")
        tops.append(top)
    made = config("cat", "/which", layers=(layer, *tops))
    await runtime.create(made)
    await runtime.start_container(made.id)
    await runtime.wait(made.id)
    assert await text_of(runtime, made.id) == "99\n"


async def test_logs_rotate_without_loss(runtime: OCIRuntime, config: MakeConfig) -> None:
    limits = LogConfig(options={"max-size": "100k", "max-file": "50"})
    script = "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; sleep 2.5; echo end"
    made = config("sh", "-c", script, log=limits)
    await runtime.create(made)
    await runtime.start_container(made.id)
    followed = [entry.data async for entry in runtime.logs(made.id, LogQuery(follow=True))]
    wanted = [b"line %d\n" % number for number in range(30000)] + [b"end\n"]
    assert followed == wanted
    assert len(log_files(runtime.log_path(made.id))) > 1
    assert (await text_of(runtime, made.id)).encode() == b"".join(wanted)
    assert await text_of(runtime, made.id, LogQuery(tail=3)) == "line 29998\nline 29999\nend\n"


async def test_health_checks(runtime: OCIRuntime, config: MakeConfig) -> None:
    test = HealthConfig(
        test=["CMD-SHELL", "echo look; test -e /tmp/well"],
        interval=SECOND // 20,
        retries=2,
        timeout=5 * SECOND,
    )
    made = config("sleep", "1000", healthcheck=effective_check(None, test))
    watch = runtime.watch()
    supervisor = asyncio.create_task(HealthSupervisor(runtime, SystemClock()).run())

    async def until(status: HealthStatus) -> ContainerState:
        async for _, state in watch:
            if state is not None and state.health.status is status:
                return state
        raise AssertionError("unreachable")

    try:
        await runtime.create(made)
        await runtime.start_container(made.id)
        await until(HealthStatus.STARTING)
        sick = await until(HealthStatus.UNHEALTHY)
        assert sick.health.log[-1].output == "look\n"
        assert sick.health.log[-1].exit_code == 1
        await runtime.exec(made.id, ["touch", "/tmp/well"])
        well = await until(HealthStatus.HEALTHY)
        assert well.health.failing_streak == 0
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
