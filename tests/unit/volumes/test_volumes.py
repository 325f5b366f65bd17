"""Volumes and the mounts that use them."""

import random
from pathlib import Path

import pytest

from cluster.errors import Conflict, InvalidArgument, NotFound
from cluster.spec import BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions
from tests.fakes.clock import ManualClock
from worker.images.config import ImageConfig
from worker.images.model import Image
from worker.runtime.model import MountKind
from worker.runtime.mountinfo import MountEntry, mount_of
from worker.volumes.filesystems import parse_options
from worker.volumes.mounts import resolve_mounts
from worker.volumes.store import ANONYMOUS_LABEL, VolumeStore


def make_image() -> Image:
    layers = (Path("/l/1"), Path("/l/2"))
    return Image("sha256:1", ("tools:1",), (), ImageConfig(), 0, ("d1", "d2"), layers, ("1", "2"), 0)


def store(path: Path) -> VolumeStore:
    return VolumeStore(path / "volumes", ManualClock(), random.Random(1))


def test_create_again_and_find_after_a_restart(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    made = volumes.create("data", labels={"a": "b"})
    assert volumes.create("data", labels={"c": "d"}) == made
    (made.path / "file").write_text("kept")
    again = store(tmp_path)
    assert again.get("data") == made
    assert (again.get("data").path / "file").read_text() == "kept"
    anonymous = volumes.create()
    assert len(anonymous.name) == 64
    assert ANONYMOUS_LABEL in anonymous.labels
    assert [volume.name for volume in store(tmp_path).all()] == sorted(["data", anonymous.name])


def test_a_removal_cut_short_is_finished(tmp_path: Path) -> None:
    store(tmp_path).create("data")
    (tmp_path / "volumes" / "data").rename(tmp_path / "volumes" / ".data")
    assert store(tmp_path).all() == []
    assert list((tmp_path / "volumes").iterdir()) == []


def test_in_use(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    volumes.create("data")
    volumes.acquire("data", "c1")
    with pytest.raises(Conflict, match="volume is in use - \\[c1\\]"):
        volumes.remove("data")
    assert volumes.release("c1", remove_anonymous=True) == []
    volumes.remove("data")
    with pytest.raises(NotFound, match="no such volume"):
        volumes.get("data")
    with pytest.raises(NotFound):
        volumes.remove("data")
    volumes.remove("data", force=True)


@pytest.mark.parametrize("name", ["../x", "a", "/abs", "a/b", ".hidden", "a b"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid characters"):
        store(tmp_path).create(name)


def test_image_volumes_become_anonymous_and_go_with_the_container(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    wanted = [Mount(type="volume", source="mine", target="/data/")]
    points = resolve_mounts("c1", wanted, ["/data", "/cache"], volumes)
    assert [point.target for point in points] == ["/data/", "/cache"]
    assert points[0].volume_name == "mine"
    assert all(point.copy_up for point in points)
    assert volumes.release("c1", remove_anonymous=True) == [points[1].volume_name]
    assert [volume.name for volume in volumes.all()] == ["mine"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    wanted = [Mount(type="volume", target="/a"), Mount(type="bind", source="/no/such/path", target="/b")]
    with pytest.raises(InvalidArgument, match="bind source path does not exist: /no/such/path"):
        resolve_mounts("c1", wanted, [], volumes)
    assert volumes.all() == []


def test_refusals(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    bad = [
        (Mount(type="bind", source="relative", target="/x"), "must be absolute"),
        (Mount(type="bind", source="/", target="x"), "must be absolute"),
        (Mount(type="bind", target="/x"), "Source must not be empty"),
        (Mount(type="tmpfs", source="/y", target="/x"), "Source must be empty"),
        (Mount(type="npipe", target="/x"), "mount type unknown"),
        (
            Mount(type="bind", source="/", target="/x", bind_options=BindOptions(propagation="odd")),
            "propagation",
        ),
    ]
    for mount, message in bad:
        with pytest.raises(InvalidArgument, match=message):
            resolve_mounts("c1", [mount], [], volumes)


def test_options_of_a_volume_go_with_its_mounts(tmp_path: Path) -> None:
    unmounted: list[Path] = []
    volumes = VolumeStore(tmp_path / "v", ManualClock(), random.Random(1), unmount=unmounted.append)
    nfs = {"type": "nfs", "o": "addr=192.0.2.1", "device": ":/exports"}
    options = VolumeOptions(subpath="sub", driver_config=DriverConfig(name="local", options=nfs))
    mount = Mount(type="volume", source="data", target="/x", volume_options=options)
    (point,) = resolve_mounts("c1", [mount], [], volumes)
    assert (point.subpath, point.options_of_volume, point.copy_up) == ("sub", nfs, False)
    (again,) = resolve_mounts("c2", [Mount(type="volume", source="data", target="/y")], [], volumes)
    assert again.options_of_volume == nfs
    volumes.release("c1", remove_anonymous=True)
    assert unmounted == []
    volumes.release("c2", remove_anonymous=True)
    assert unmounted == [volumes.get("data").path]
    for bad in ({"type": "nfs"}, {"size": "1g"}, {"o": "bind"}):
        with pytest.raises(InvalidArgument):
            volumes.create("other", options=bad)


def test_a_volume_whose_files_are_elsewhere_is_not_swept_while_mounted(tmp_path: Path) -> None:
    def busy(path: Path) -> None:
        raise OSError(16, "busy")

    volumes = VolumeStore(tmp_path / "v", ManualClock(), random.Random(1), unmount=busy)
    volumes.create("data", options={"type": "tmpfs", "device": "tmpfs"})
    with pytest.raises(Conflict, match="can't be unmounted"):
        volumes.remove("data")
    assert volumes.get("data").path.is_dir()


def test_mount_options_as_mount_8_takes_them() -> None:
    assert parse_options("addr=192.0.2.1,ro,nosuid,vers=4") == (0x3, "addr=192.0.2.1,vers=4", 0)
    assert parse_options("bind,ro,rw") == (0x1000, "", 0)
    assert parse_options("rbind,rslave") == (0x5000, "", 1 << 19 | 0x4000)


def test_images_are_mounts(tmp_path: Path) -> None:
    mount = Mount(type="image", source="tools:1", target="/x", image_options=ImageOptions(subpath="bin"))
    image = make_image()
    (point,) = resolve_mounts("c1", [mount], [], store(tmp_path), {"tools:1": image})
    assert (point.kind, point.layers, point.subpath) == (MountKind.IMAGE, image.layers, "bin")
    with pytest.raises(InvalidArgument, match="no such image"):
        resolve_mounts("c1", [mount], [], store(tmp_path))


MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /run rw master:7 - tmpfs tmpfs rw
31 22 0:27 / /mnt/a\\040b rw - tmpfs tmpfs rw
32 31 0:28 / /mnt/a\\040b/inner rw shared:9 - tmpfs tmpfs rw
"""


def test_the_mount_of_a_path() -> None:
    assert mount_of(Path("/srv/x"), MOUNTINFO) == MountEntry("/", True, False, ("rw", "relatime"))
    assert mount_of(Path("/run/x"), MOUNTINFO) == MountEntry("/run", False, True, ("rw",))
    assert mount_of(Path("/mnt/a b/c"), MOUNTINFO) == MountEntry("/mnt/a b", False, False, ("rw",))
    assert mount_of(Path("/mnt/a b/inner"), MOUNTINFO).shared


def test_tmpfs(tmp_path: Path) -> None:
    mount = Mount(type="tmpfs", target="/x", tmpfs_options=TmpfsOptions(size_bytes=9, options=[["noatime"]]))
    (point,) = resolve_mounts("c1", [mount], [], store(tmp_path))
    assert (point.kind, point.size_bytes, point.options) == (MountKind.TMPFS, 9, ("noatime",))
