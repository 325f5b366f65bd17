"""The Engine API client: addresses, versions, errors, streams."""

import io
from http.client import HTTPResponse
from pathlib import Path
from typing import cast

import pytest

from cluster.errors import InvalidArgument
from shoal.cli.client import (
    DEFAULT_HOST,
    Engine,
    EngineError,
    TLSFiles,
    Unreachable,
    default_host,
    json_lines,
    log_frames,
)
from tests.fakes.engine_api import FakeEngine


@pytest.fixture
def client(engine: FakeEngine, tmp_path: Path) -> Engine:
    return Engine(f"unix://{tmp_path / 'e.sock'}")


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [("1.50", "v1.50"), ("1.41", "v1.41"), ("1.52", "v1.50"), ("2.0", "v1.50"), ("", "v1.50")],
)
def test_speaks_the_older_of_both_versions(
    engine: FakeEngine, client: Engine, offered: str, spoken: str
) -> None:
    engine.version = offered
    engine.on("GET", "/info", {})
    client.get("/info")
    assert engine.versions == [spoken]


def test_query_values_become_what_the_engine_reads(engine: FakeEngine, client: Engine) -> None:
    engine.on("GET", "/tasks", [])
    client.get("/tasks", filters={"service": ["a b"]}, all=True, none=None, limit=3)
    assert engine.calls[0].query == {"filters": '{"service": ["a b"]}', "all": "true", "limit": "3"}


def test_an_error_keeps_the_engines_words_and_status(engine: FakeEngine, client: Engine) -> None:
    engine.on("POST", "/services/create", (409, "name conflicts with an existing object"))
    with pytest.raises(EngineError, match="name conflicts") as caught:
        client.post("/services/create", {})
    assert caught.value.status == 409


def test_no_engine_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"is shoald running there\?.*SHOAL_HOST"):
        Engine(f"unix://{tmp_path}/none.sock").get("/info")
    with pytest.raises(Unreachable, match="shoald running"):
        Engine("tcp://127.0.0.1:9").get("/info")


@pytest.mark.parametrize("host", ["", "unix://", "tcp://", "ftp://x", "host:2375"])
def test_addresses_that_mean_nothing_are_refused(host: str) -> None:
    with pytest.raises(InvalidArgument, match="is not understood"):
        Engine(host)


def test_missing_tls_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"ca\.pem"):
        Engine("tcp://127.0.0.1", tls=TLSFiles.in_folder(tmp_path))


def test_default_host_follows_the_environment() -> None:
    assert default_host({}) == DEFAULT_HOST
    assert default_host({"DOCKER_HOST": "tcp://d"}) == "tcp://d"
    assert default_host({"DOCKER_HOST": "tcp://d", "SHOAL_HOST": "tcp://s"}) == "tcp://s"


def _response(data: bytes) -> HTTPResponse:
    return cast(HTTPResponse, io.BytesIO(data))


def test_log_frames_are_taken_apart() -> None:
    data = b"\x01\0\0\0\0\0\0\x03out" + b"\x02\0\0\0\0\0\0\x03err"
    assert list(log_frames(_response(data))) == [(1, b"out"), (2, b"err")]


@pytest.mark.parametrize("data", [b"\x01\0\0", b"\x01\0\0\0\0\0\0\x05abc"])
def test_logs_that_break_off_are_an_error(data: bytes) -> None:
    with pytest.raises(EngineError, match="broke off"):
        list(log_frames(_response(data)))


def test_an_error_in_the_log_stream_is_raised() -> None:
    with pytest.raises(EngineError, match="node is gone"):
        list(log_frames(_response(b"\x03\0\0\0\0\0\0\x0cnode is gone")))


def test_json_lines_skip_blank_ones() -> None:
    assert list(json_lines(_response(b'{"a": 1}\n\n{"b": 2}\r\n'))) == [{"a": 1}, {"b": 2}]


def test_ping_never_raises(tmp_path: Path, client: Engine) -> None:
    assert client.ping()
    assert not Engine(f"unix://{tmp_path}/none").ping()
