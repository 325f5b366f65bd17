"""Whatever a client sends: the right status, a message, never an internal error."""

import json

import pytest

from tests.unit.engine_api.conftest import Api


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.50"])
async def test_ping(api: Api, prefix: str) -> None:
    for method in ("GET", "HEAD"):
        async with api.client.request(method, f"{prefix}/_ping") as answer:
            assert answer.status == 200
            assert answer.headers["Api-Version"] == "1.50"
            assert answer.headers["Swarm"] == "inactive"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1.23/info", 400),
        ("GET", "/v1.51/info", 400),
        ("GET", "/v1/info", 404),
        ("GET", f"/v1.{'9' * 5000}/info", 404),
        ("GET", f"/v{'9' * 5000}.1/info", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/info", 405),
        ("OPTIONS", "/_ping", 405),
    ],
)
async def test_versions_paths_and_methods(api: Api, method: str, path: str, status: int) -> None:
    assert (await api(method, path))[0] == status


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff\xfe",
        b'{"Name":1}',
        b'{"Name":["a"]}',
        b'{"Labels":[1]}',
        b'{"Labels":{"a":1}}',
        b'{"a":' * 5000,
        b'{"Name":"' + b"a" * 5000 + b'"}',
        b'{"Name":"../../etc"}',
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
async def test_bodies_that_make_no_sense(api: Api, body: bytes) -> None:
    assert (await api("POST", "/volumes/create", body))[0] == 400
    assert (await api("GET", "/volumes"))[1]["Volumes"] == []


async def test_a_body_in_an_encoding_that_is_not_what_it_says(api: Api) -> None:
    headers = {"Content-Encoding": "gzip"}
    async with api.client.post("/volumes/create", data=b"no gzip", headers=headers) as answer:
        assert answer.status == 400
        assert "can't be read" in (await answer.json())["message"]


@pytest.mark.parametrize(
    "filters",
    [
        "{", "[]", "1", "null", '{"no-such":["x"]}', '{"status":["bogus"]}', '{"health":["bogus"]}',
        '{"exited":["x"]}', '{"is-task":["maybe"]}', '{"name":["("]}', '{"publish":["x"]}', '{"name":1}',
    ],
)  # fmt: skip
async def test_filters_that_make_no_sense(api: Api, filters: str) -> None:
    assert (await api("GET", "/containers/json", filters=filters))[0] == 400


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"name": ["we"]}, ["web"]),
        ({"name": ["^/web$"]}, ["web"]),
        ({"name": ["^we$"]}, []),
        ({"name": {"web": True, "db": True}}, ["db", "web"]),
        ({"status": ["running"]}, ["db", "web"]),
        ({"status": {"exited": True}}, ["old"]),
        ({"exited": ["3"]}, ["old"]),
        ({"exited": ["4"]}, []),
        ({"label": ["tier"]}, ["db"]),
        ({"label": ["tier=front"]}, []),
        ({"is-task": ["true"]}, []),
        ({"ancestor": ["busybox"]}, ["db", "web"]),
        ({"ancestor": ["abab"]}, ["db", "web"]),
        ({"since": ["web"]}, ["db"]),
        ({"before": ["db"]}, ["web"]),
        ({"health": ["none"]}, ["db", "web"]),
    ],
    ids=json.dumps,
)
async def test_filters_in_both_encodings(api: Api, filters: object, found: list[str]) -> None:
    await api.run("old", "sh", "-c", "exit 3", created_at=1)
    await api.run("web", created_at=2)
    await api.run("db", created_at=3, labels={"tier": "back"})
    old = api.runtime.list()[0][0]
    await api.runtime.wait(old.id)
    status, answer = await api("GET", "/containers/json", filters=json.dumps(filters))
    assert status == 200
    assert sorted(container["Names"][0].lstrip("/") for container in answer) == found


async def test_limits(api: Api) -> None:
    for number in range(3):
        await api.run(f"c{number}", created_at=number)
    for limit, count in (("2", 2), ("0", 3), ("-1", 3), ("9", 3)):
        assert len((await api("GET", "/containers/json", limit=limit))[1]) == count
    assert (await api("GET", "/containers/json", limit="x"))[0] == 400


async def test_unknown_containers(api: Api) -> None:
    for method, path in (
        ("GET", "/containers/x/json"),
        ("GET", "/containers/x/logs"),
        ("POST", "/containers/x/stop"),
        ("POST", "/containers/x/kill"),
        ("POST", "/containers/x/wait"),
    ):
        assert await api(method, path) == (404, {"message": "No such container: x"})
    assert (await api("GET", "/containers/json", filters='{"since":["x"]}'))[0] == 404


@pytest.mark.parametrize("name", ["a{99999999999999999999}", "(" * 3000 + "a" + ")" * 3000, "[", "a**", "\\"])
async def test_patterns_that_no_engine_takes(api: Api, name: str) -> None:
    status, answer = await api("GET", "/containers/json", filters=json.dumps({"name": [name]}))
    assert (status, "invalid pattern" in answer["message"]) == (400, True)


@pytest.mark.parametrize("limit", ["9" * 5000, "1e3", "0x10", "1_000", "--1"])
async def test_numbers_that_are_none(api: Api, limit: str) -> None:
    assert (await api("GET", "/containers/json", limit=limit))[0] == 400
