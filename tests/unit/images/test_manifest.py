import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from tests.support.layers import make_image
from worker.images.config import ImageConfig, decode_config, encode_config, image_config
from worker.images.errors import InvalidImage, ManifestUnknown
from worker.images.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    Platform,
    choose,
    decode_document,
    parse_platform,
    satisfies,
)

DIGEST = "sha256:" + "0" * 64
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 3}


def manifest(**changes: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [LAYER], **changes}).encode()


def index(*platforms: Platform | None) -> Index:
    entries = []
    for number, platform in enumerate(platforms):
        entry: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{number:064}", "size": 1}
        if platform is not None:
            entry["platform"] = {"os": platform.os, "architecture": platform.architecture}
            entry["platform"] |= {"variant": platform.variant} if platform.variant else {}
        entries.append(entry)
    parsed = decode_document(json.dumps({"schemaVersion": 2, "manifests": entries}).encode()).parsed
    assert isinstance(parsed, Index)
    return parsed


def test_media_type_is_the_documents_own_else_the_stated_one() -> None:
    assert decode_document(manifest(mediaType=DOCKER_MANIFEST), OCI_MANIFEST).media_type == DOCKER_MANIFEST
    assert decode_document(manifest(), DOCKER_MANIFEST).media_type == DOCKER_MANIFEST
    assert decode_document(manifest(), "application/json; charset=utf-8").media_type == OCI_MANIFEST
    assert decode_document(b'{"schemaVersion":2,"manifests":[]}', DOCKER_LIST).media_type == DOCKER_LIST


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "can't be read"),
        (b"[]", "can't be read"),
        (b'{"schemaVersion":1,"fsLayers":[]}', "schema 1"),
        (b'{"schemaVersion":2}', "either layers or manifests"),
        (manifest(manifests=[]), "either layers or manifests"),
        (manifest(mediaType=OCI_INDEX), "claims to be"),
        (manifest(config={**CONFIG, "digest": "sha256:../../x"}), "not a digest"),
        (manifest(config={**CONFIG, "digest": "md5:" + "0" * 32}), "not a digest"),
        (manifest(config={**CONFIG, "size": 9 << 20}), "larger than"),
        (manifest(config={**CONFIG, "mediaType": "application/vnd.helm.config"}), "not a container image"),
        (manifest(layers=[{**LAYER, "size": -1}]), "negative"),
        (manifest(layers=[{**LAYER, "size": 1 << 50}]), "larger than"),
        (manifest(layers=[LAYER] * 128), "more than 127 layers"),
        (b" " * (4 << 20) + manifest(), "larger than"),
        (b"[" * 100_000, "can't be read"),
    ],
)
def test_bad_manifests_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(InvalidImage, match=words):
        decode_document(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mediaType", "digest", "size", "os", "layers", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
keys = st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "other"])


@settings(max_examples=300)
@given(st.dictionaries(keys, json_values))
def test_any_json_is_parsed_or_refused(value: dict[str, Any]) -> None:
    try:
        parsed = decode_document(json.dumps(value).encode()).parsed
    except InvalidImage:
        return
    assert isinstance(parsed, Manifest | Index)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode_document(content)


def test_platform_choice() -> None:
    amd, arm7, arm64 = (
        Platform("amd64", "linux"),
        Platform("arm", "linux", "v7"),
        Platform("arm64", "linux", "v8"),
    )
    found = index(None, Platform("unknown", "unknown"), amd, arm7, arm64)
    assert choose(found, amd).digest.endswith("2")
    assert choose(found, Platform("arm", "linux")).digest.endswith("3")
    assert choose(found, Platform("arm64", "linux")).digest.endswith("4")
    with pytest.raises(ManifestUnknown, match=r"linux/386.*linux/amd64, linux/arm/v7, linux/arm64/v8\)"):
        choose(found, Platform("386", "linux"))
    assert satisfies(arm64, Platform("arm64", "linux"))
    assert not satisfies(Platform("arm", "linux", "v6"), arm7)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("arm64", "linux/arm64"),
        ("Linux/AMD64", "linux/amd64"),
    ],
)
def test_platform_words(text: str, shown: str) -> None:
    assert str(parse_platform(text)) == shown


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "linux/a b"])
def test_bad_platform(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not a platform"):
        parse_platform(text)


words = st.lists(st.text(max_size=8), max_size=3).map(tuple)


@given(words, words, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_config_round_trip(cmd: tuple[str, ...], env: tuple[str, ...], labels: dict[str, str]) -> None:
    config = ImageConfig(
        cmd=cmd,
        env=env,
        labels=labels,
        exposed_ports=("80/tcp",),
        volumes=("/data",),
        user="1:2",
        stop_timeout=3,
    )
    assert image_config(decode_config(encode_config(config, [DIGEST]))) == config


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "can't be read"),
        (b'{"architecture":"a","os":"linux","rootfs":{"type":"layers","diff_ids":["x"]}}', "not a digest"),
        (b'{"architecture":"a","os":"linux","rootfs":{"type":"zip","diff_ids":[]}}', "unknown type"),
        (b'{"architecture":"a","os":"linux","rootfs":{"diff_ids":[]},"config":{"Env":[1]}}', "can't be read"),
        (b" " * (9 << 20), "larger than"),
    ],
)
def test_bad_configs_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(InvalidImage, match=words):
        decode_config(content)


def test_dockers_own_config_is_read() -> None:
    content = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "created": "2024-01-01T00:00:00Z",
        "container_config": {"Cmd": None},
        "config": {
            "Hostname": "",
            "Env": None,
            "Cmd": ["sh"],
            "Volumes": None,
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000},
            "Labels": None,
        },
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}],
    }
    config = image_config(decode_config(json.dumps(content).encode()))
    assert (config.cmd, config.exposed_ports, config.env) == (("sh",), ("80/tcp",), ())
    assert config.healthcheck is not None
    assert config.healthcheck.interval == 5_000_000_000


def test_what_we_make_is_valid() -> None:
    made = make_image([b""])
    assert isinstance(decode_document(made.manifest).parsed, Manifest)
