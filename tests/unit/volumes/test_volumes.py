"""Volumes and the mounts that use them."""

import random
from pathlib import Path

import pytest

from cluster.errors import Conflict, InvalidArgument, NotFound
from cluster.spec import BindOptions, Mount, TmpfsOptions, VolumeOptions
from tests.fakes.clock import ManualClock
from worker.runtime.model import MountKind
from worker.volumes.mounts import resolve_mounts
from worker.volumes.store import ANONYMOUS_LABEL, VolumeStore


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
    assert volumes.prune(named=True) == ([], 0)
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


def test_prune_takes_anonymous_ones_only(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    named, anonymous = volumes.create("named"), volumes.create()
    (anonymous.path / "file").write_bytes(b"x" * 5000)
    removed, freed = volumes.prune()
    assert removed == [anonymous.name]
    assert freed >= 5000
    assert volumes.prune(named=True)[0] == [named.name]


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


def test_subpaths_stay_inside(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    data = volumes.create("data").path
    (data / "sub").mkdir()
    (data / "out").symlink_to(tmp_path)

    def resolve(subpath: str) -> Path | None:
        options = VolumeOptions(subpath=subpath)
        mount = Mount(type="volume", source="data", target="/x", volume_options=options)
        return resolve_mounts("c1", [mount], [], volumes)[0].source

    assert resolve("sub") == data / "sub"
    for bad in ("../..", "out", "/etc"):
        with pytest.raises(InvalidArgument, match="leads out"):
            resolve(bad)


def test_tmpfs(tmp_path: Path) -> None:
    mount = Mount(type="tmpfs", target="/x", tmpfs_options=TmpfsOptions(size_bytes=9, options=[["noatime"]]))
    (point,) = resolve_mounts("c1", [mount], [], store(tmp_path))
    assert (point.kind, point.size_bytes, point.options) == (MountKind.TMPFS, 9, ("noatime",))
