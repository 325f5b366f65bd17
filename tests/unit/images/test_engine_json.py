import json
from pathlib import Path

from tests.support.instant_clock import InstantClock
from worker.images.config import HistoryEntry, ImageConfig, decode_config, encode_config, image_config
from worker.images.engine_json import (
    distribution_inspect,
    error_line,
    image_history,
    image_inspect,
    image_summary,
    prune_report,
    removal_items,
)
from worker.images.errors import NoSuchImage
from worker.images.manifest import Descriptor, Platform
from worker.images.model import Image, Removal, ResolvedDescriptor
from worker.images.progress import LayerProgress, bar, human_size

DIFF_IDS = ["sha256:" + "1" * 64, "sha256:" + "2" * 64]
ID = "sha256:" + "a" * 64
CONFIG = ImageConfig(
    cmd=("run",),
    env=("A=1",),
    exposed_ports=("80/tcp",),
    volumes=("/data",),
    labels={"k": "v"},
    created="2024-01-01T00:00:00.123456789Z",
    history=(
        HistoryEntry(created="2024-01-01T00:00:00Z", created_by="ADD base"),
        HistoryEntry(created_by="ENV A=1", empty_layer=True),
        HistoryEntry(created_by="RUN make"),
    ),
)
DOCUMENT = decode_config(encode_config(CONFIG, DIFF_IDS))
IMAGE = Image(
    id=ID,
    repo_tags=("app:1",),
    repo_digests=(f"app@{ID}",),
    config=image_config(DOCUMENT),
    size=30,
    diff_ids=tuple(DIFF_IDS),
    layers=(Path("/s/l/low/d"), Path("/s/l/high/d")),
    layer_names=("l/low/d", "l/high/d"),
    tagged_at=1_704_067_200_000_000_005,
)


def test_summary() -> None:
    assert image_summary(IMAGE) == {
        "Containers": -1,
        "Created": 1704067200,
        "Id": ID,
        "Labels": {"k": "v"},
        "ParentId": "",
        "RepoDigests": [f"app@{ID}"],
        "RepoTags": ["app:1"],
        "SharedSize": -1,
        "Size": 30,
    }


def test_inspect_has_what_clients_read() -> None:
    shown = json.loads(json.dumps(image_inspect(IMAGE, DOCUMENT)))
    assert shown["Created"] == "2024-01-01T00:00:00.123456789Z"
    assert shown["Config"]["Cmd"] == ["run"]
    assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert shown["Config"]["Volumes"] == {"/data": {}}
    assert shown["Config"]["Entrypoint"] is None
    assert shown["RootFS"] == {"Type": "layers", "Layers": DIFF_IDS}
    assert shown["GraphDriver"]["Data"] == {"UpperDir": "/s/l/high/d", "LowerDir": "/s/l/low/d"}
    assert shown["Metadata"]["LastTagTime"] == "2024-01-01T00:00:00.000000005Z"
    assert (shown["Os"], shown["Architecture"]) == ("linux", "amd64")


def test_history_is_newest_first_and_gives_layers_their_steps() -> None:
    steps = image_history(IMAGE, DOCUMENT, [10, 20])
    assert [(step["CreatedBy"], step["Size"]) for step in steps] == [
        ("RUN make", 20),
        ("ENV A=1", 0),
        ("ADD base", 10),
    ]
    assert (steps[0]["Id"], steps[0]["Tags"], steps[1]["Id"]) == (ID, ["app:1"], "<missing>")


def test_history_without_history_shows_layers() -> None:
    bare = decode_config(encode_config(ImageConfig(), DIFF_IDS))
    assert [step["Size"] for step in image_history(IMAGE, bare, [10, 20])] == [20, 10]


def test_removal_and_prune() -> None:
    removal = Removal((("Untagged", "app:1"), ("Deleted", ID)), 30)
    assert removal_items(removal) == [{"Untagged": "app:1"}, {"Deleted": ID}]
    assert prune_report(removal) == {"ImagesDeleted": removal_items(removal), "SpaceReclaimed": 30}
    assert prune_report(Removal(())) == {"ImagesDeleted": None, "SpaceReclaimed": 0}


def test_distribution() -> None:
    resolved = ResolvedDescriptor("app:1", Descriptor("type", ID, 7), (Platform("arm64", "linux", "v8"),))
    assert distribution_inspect(resolved) == {
        "Descriptor": {"mediaType": "type", "digest": ID, "size": 7},
        "Platforms": [{"architecture": "arm64", "os": "linux", "variant": "v8"}],
    }


def test_error_line() -> None:
    assert error_line(NoSuchImage("x")) == {
        "errorDetail": {"message": "No such image: x", "code": 404},
        "error": "No such image: x",
    }
    assert error_line(TimeoutError()) == {"errorDetail": {"message": "TimeoutError"}, "error": "TimeoutError"}


def test_progress_is_thinned_out_but_never_loses_the_end() -> None:
    told: list[dict[str, object]] = []
    progress = LayerProgress("abc", told.append, InstantClock())
    for current in range(1, 1001):
        progress("Downloading", current, 1000)
    progress("Download complete")
    assert [message["progressDetail"] for message in told] == [
        {"current": 1, "total": 1000},
        {"current": 1000, "total": 1000},
        {},
    ]


def test_sizes_and_bars() -> None:
    assert [human_size(size) for size in (0, 999, 1000, 1_234_567, 5e9)] == [
        "0B",
        "999B",
        "1kB",
        "1.235MB",
        "5GB",
    ]
    assert bar(1, 2) == "[" + "=" * 25 + ">" + " " * 24 + "]       1B/2B"
    assert bar(2, 2) == "[" + "=" * 50 + "]       2B/2B"
