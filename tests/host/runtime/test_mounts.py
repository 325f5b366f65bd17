"""Every kind of mount, looked at from inside a container and from the node."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import InvalidArgument
from tests.host.runtime.test_security import run
from tests.support.runtime_conformance import MakeConfig
from worker.runtime import syscalls
from worker.runtime.launch import ContainerStartFailed
from worker.runtime.model import MountKind, MountPoint
from worker.runtime.oci import OCIRuntime
from worker.volumes.filesystems import unmount_volume

pytestmark = pytest.mark.host


def volume(path: Path, target: str, **fields: object) -> MountPoint:
    path.mkdir(parents=True, exist_ok=True)
    return MountPoint(kind=MountKind.VOLUME, target=target, source=path, volume_name=path.name, **fields)  # type: ignore[arg-type]


async def test_images_and_directories_inside_volumes(
    runtime: OCIRuntime, config: MakeConfig, layer: Path, tmp_path: Path
) -> None:
    data, second = tmp_path / "data", tmp_path / "second"
    (data / "sub" / "deep").mkdir(parents=True)
    (data / "sub" / "file").write_text("kept\n")
    (second / "etc").mkdir(parents=True)
    (second / "etc" / "group").write_text("second\n")
    (second / "tool").write_text("a tool\n")
    mounts = (
        MountPoint(kind=MountKind.IMAGE, target="/image", layers=(layer, second)),
        MountPoint(kind=MountKind.IMAGE, target="/single", layers=(layer,)),
        MountPoint(kind=MountKind.IMAGE, target="/data/part", layers=(layer, second), subpath="etc"),
        volume(data, "/volume", subpath="sub"),
        volume(data, "/one", subpath="sub/file"),
    )
    script = (
        "cat /image/tool /image/etc/group /single/data/from-image /data/part/group /volume/file /one;"
        "for place in /image /single /data/part; do touch $place/x 2>/dev/null && echo written; done;"
        "echo new > /volume/deep/answer; echo more >> /one; grep -c alice /data/part/passwd"
    )
    text = await run(runtime, config, "sh", "-c", script, mounts=mounts)
    assert text.splitlines() == ["a tool", "second", "image", "second", "kept", "kept", "1"]
    assert (data / "sub" / "deep" / "answer").read_text() == "new\n"
    assert (data / "sub" / "file").read_text() == "kept\nmore\n"
    assert not (layer / "x").exists()
    for config_, _ in runtime.list():
        await runtime.remove(config_.id)
    assert (data / "sub" / "file").exists()
    assert (layer / "bin" / "busybox").exists()


@pytest.mark.parametrize("subpath", ["out", "../x", "missing", "loop"])
async def test_a_subpath_stays_in_its_volume(
    runtime: OCIRuntime, config: MakeConfig, tmp_path: Path, subpath: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "out").symlink_to("/etc")
    (data / "loop").symlink_to("loop")
    made = config("true", mounts=(volume(data, "/v", subpath=subpath),))
    await runtime.create(made)
    with pytest.raises(InvalidArgument, match=r"subpath|cannot access path"):
        await runtime.start_container(made.id)
    assert not (runtime.rootfs(made.id).parent).exists()


async def test_file_systems_behind_volumes(runtime: OCIRuntime, config: MakeConfig, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "seen").write_text("bound\n")
    shared, bound = tmp_path / "shared", tmp_path / "bound"
    tmpfs = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=700,noexec"}
    bind = {"type": "none", "device": str(elsewhere), "o": "bind,ro"}
    mounts = (
        volume(shared, "/data", options_of_volume=tmpfs, copy_up=True),
        volume(bound, "/bound", options_of_volume=bind),
    )
    script = "cat /data/*; df -k /data | tail -1 | awk '{print $2}'; grep ' /data ' /proc/mounts;"
    try:
        text = await run(
            runtime, config, "sh", "-c",
            script + "cat /bound/seen; touch /bound/x 2>&1; echo one > /data/one", mounts=mounts,
        )  # fmt: skip
        assert text.split()[:2] == ["image", "1024"]
        assert "/data tmpfs rw,noexec" in text
        assert "\nbound\n" in text
        assert "Read-only" in text
        text = await run(runtime, config, "cat", "/data/one", mounts=mounts)
        assert text == "one\n"  # a second container sees the same file system
    finally:
        unmount_volume(shared)
        unmount_volume(bound)
    assert list(shared.iterdir()) == []
    assert (elsewhere / "seen").exists()
    broken = config(
        "true", mounts=(volume(tmp_path / "b", "/b", options_of_volume=tmpfs | {"type": "nosuch"}),)
    )
    await runtime.create(broken)
    with pytest.raises(ContainerStartFailed, match="error while mounting volume 'b'"):
        await runtime.start_container(broken.id)


async def test_files_of_a_container_that_does_not_run(
    runtime: OCIRuntime, config: MakeConfig, tmp_path: Path
) -> None:
    """`docker cp` meets the mounts as they are in the container."""
    data, fixed, far = tmp_path / "data", tmp_path / "fixed", tmp_path / "far"
    (data / "sub").mkdir(parents=True)
    made = config(
        "true",
        mounts=(
            volume(data, "/volume", subpath="sub"),
            volume(fixed, "/fixed", read_only=True),
            volume(far, "/far", options_of_volume={"type": "tmpfs", "device": "tmpfs"}),
        ),
    )
    await runtime.create(made)
    try:
        with runtime.opened_root(made.id) as root:
            for name in ("volume", "far"):
                root.make_directories(f"/{name}/written")
            with pytest.raises(OSError, match="Read-only"):
                root.make_directories("/fixed/written")
        assert (data / "sub" / "written").is_dir()
        assert (far / "written").is_dir()
    finally:
        unmount_volume(far)
    assert list(far.iterdir()) == []  # it went to the file system behind the volume
    assert [path.name for path in data.iterdir()] == ["sub"]
    missing = config("true", mounts=(volume(data, "/volume", subpath="no"),))
    await runtime.create(missing)
    with pytest.raises(InvalidArgument, match="cannot access path"), runtime.opened_root(missing.id):
        pass


@pytest.fixture
def shared_mount(tmp_path: Path, mount_namespace: None) -> Iterator[Path]:
    """A directory that is a mount of its own, shared with other namespaces."""
    place = tmp_path / "shared"
    place.mkdir()
    syscalls.mount("tmpfs", str(place), "tmpfs")
    syscalls.mount("", str(place), "", 1 << 20)  # MS_SHARED
    yield place
    while syscalls.unmount(str(place)):
        pass


async def test_propagation(runtime: OCIRuntime, config: MakeConfig, shared_mount: Path) -> None:
    (shared_mount / "inside").mkdir()
    (shared_mount / "outside").mkdir()

    def bind(propagation: str) -> MountPoint:
        return MountPoint(kind=MountKind.BIND, target="/m", source=shared_mount, propagation=propagation)

    seen = {}
    for propagation in ("rprivate", "rslave", "rshared"):
        made = config("sleep", "1000", mounts=(bind(propagation),), cap_add=("SYS_ADMIN",))
        await runtime.create(made)
        await runtime.start_container(made.id)
        syscalls.mount("tmpfs", str(shared_mount / "outside"), "tmpfs")
        inward = await runtime.exec(made.id, ["grep", "-c", " /m/outside ", "/proc/self/mounts"])
        await runtime.exec(made.id, ["mount", "-t", "tmpfs", "tmpfs", "/m/inside"])
        outward = str(shared_mount / "inside") in Path("/proc/thread-self/mounts").read_text()
        seen[propagation] = (inward.output.strip(), outward)
        await runtime.remove(made.id, force=True)
        for name in ("inside", "outside"):
            while syscalls.unmount(str(shared_mount / name)):
                pass
    assert seen == {"rprivate": (b"0", False), "rslave": (b"1", False), "rshared": (b"1", True)}


async def test_recursion_and_read_only(runtime: OCIRuntime, config: MakeConfig, shared_mount: Path) -> None:
    below = shared_mount / "below"
    below.mkdir()
    syscalls.mount("tmpfs", str(below), "tmpfs")
    (below / "file").touch()

    async def tried(**fields: object) -> str:
        point = MountPoint(kind=MountKind.BIND, target="/m", source=shared_mount, **fields)  # type: ignore[arg-type]
        script = (
            "ls /m/below; touch /m/a 2>/dev/null && echo top;"
            "touch /m/below/b 2>/dev/null && echo deep; rm -f /m/below/b"
        )
        return " ".join((await run(runtime, config, "sh", "-c", script, mounts=(point,))).split())

    try:
        assert await tried() == "file top deep"
        assert await tried(recursive=False) == "top deep"
        assert await tried(read_only=True) == "file"
        assert await tried(read_only=True, read_only_recursive=False) == "file deep"
    finally:
        while syscalls.unmount(str(below)):
            pass
    assert subprocess.run(["findmnt", "-n", str(below)], capture_output=True, check=False).returncode != 0
