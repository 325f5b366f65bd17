"""`/volumes` and `/system/df` without a machine."""

import json

import pytest

from tests.unit.engine_api.conftest import Api


async def create(api: Api, name: str, **labels: str) -> None:
    status, _ = await api("POST", "/volumes/create", {"Name": name, "Labels": labels})
    assert status == 201


async def names(api: Api, **filters: list[str] | dict[str, bool]) -> list[str]:
    status, found = await api("GET", "/volumes", filters=json.dumps(filters))
    assert status == 200
    return [volume["Name"] for volume in found["Volumes"]]


async def test_filters_of_the_list_in_both_encodings(api: Api) -> None:
    await create(api, "gold", tier="gold")
    await create(api, "golden", tier="gold", owner="me")
    await create(api, "tin")
    api.engine.volumes.acquire("tin", "c1")
    assert await names(api, name=["gold"]) == ["gold", "golden"]
    assert await names(api, name={"^gold$": True}) == ["gold"]
    assert await names(api, label=["tier=gold", "owner"]) == ["golden"]
    assert await names(api, label={"tier=tin": True}) == []
    assert await names(api, dangling=["true"]) == ["gold", "golden"]
    assert await names(api, dangling={"0": True}) == ["tin"]
    assert await names(api, driver=["local"]) == ["gold", "golden", "tin"]
    assert await names(api, driver=["nfs"]) == []


@pytest.mark.parametrize("filters", [{"nosuch": ["1"]}, {"dangling": ["maybe"]}, {"name": ["("]}])
async def test_filters_that_cannot_be_meant(api: Api, filters: dict[str, list[str]]) -> None:
    assert (await api("GET", "/volumes", filters=json.dumps(filters)))[0] == 400


async def test_a_volume_without_a_name_gets_one_and_is_anonymous(api: Api) -> None:
    _, volume = await api("POST", "/volumes/create", {})
    assert len(volume["Name"]) == 64
    assert volume["Labels"] == {"com.docker.volume.anonymous": ""}


async def test_prune_takes_anonymous_volumes_and_all_when_told(api: Api) -> None:
    await create(api, "named", tier="gold")
    await create(api, "used")
    api.engine.volumes.acquire("used", "c1")
    _, anonymous = await api("POST", "/volumes/create", {})
    _, pruned = await api("POST", "/volumes/prune")
    assert pruned["VolumesDeleted"] == [anonymous["Name"]]
    _, pruned = await api("POST", "/volumes/prune", filters='{"all": ["true"], "label!": ["tier"]}')
    assert pruned == {"VolumesDeleted": None, "SpaceReclaimed": 0}
    _, pruned = await api("POST", "/volumes/prune", filters='{"all": {"1": true}}')
    assert pruned["VolumesDeleted"] == ["named"]
    assert await names(api) == ["used"]


async def test_old_clients_expect_a_prune_to_take_named_volumes(api: Api) -> None:
    await create(api, "named")
    _, pruned = await api("POST", "/v1.41/volumes/prune")
    assert pruned["VolumesDeleted"] == ["named"]


async def test_a_volume_in_use_stays(api: Api) -> None:
    await create(api, "used")
    api.engine.volumes.acquire("used", "c1")
    status, answer = await api("DELETE", "/volumes/used", force="1")
    assert (status, answer["message"]) == (409, "remove used: volume is in use - [c1]")
    assert (await api("DELETE", "/volumes/nosuch"))[0] == 404
    assert (await api("DELETE", "/volumes/nosuch", force="1"))[0] == 204


async def test_only_cluster_volumes_can_be_updated_and_there_are_none(api: Api) -> None:
    await create(api, "data")
    status, answer = await api("PUT", "/volumes/data", {"Spec": {}}, version="1")
    assert (status, "cluster volumes" in answer["message"]) == (503, True)
    status, _ = await api("POST", "/volumes/create", {"Name": "c", "ClusterVolumeSpec": {"Group": "g"}})
    assert status == 501


async def test_disk_usage_names_what_takes_space(api: Api) -> None:
    await create(api, "data")
    volume = api.engine.volumes.acquire("data", "c1")
    (volume.path / "file").write_bytes(b"x" * 5000)
    await api.run("web")
    _, usage = await api("GET", "/system/df")
    (shown,) = usage["Volumes"]
    assert shown["UsageData"]["RefCount"] == 1
    assert shown["UsageData"]["Size"] >= 5000
    assert usage["Containers"][0]["SizeRootFs"] == usage["Containers"][0]["SizeRw"] == 0
    assert usage["BuildCache"] == []
    _, usage = await api("GET", "/system/df", type="volume")
    assert usage["Volumes"]
    assert usage["Containers"] is usage["Images"] is usage["BuildCache"] is None
    assert (await api("GET", "/system/df", type="nosuch"))[0] == 400
    assert await api("POST", "/build/prune") == (200, {"CachesDeleted": None, "SpaceReclaimed": 0})
