"""What older versions of the API leave out of a service, as dockerd does."""

from typing import Any

import msgspec
import pytest

from cluster.engine_json import spec_json
from cluster.request_body import decoded
from cluster.spec import ServiceSpec
from manager.api.versions import understood
from tests.unit.api.manager import Api, service_body

NEW: dict[str, Any] = {
    "Name": "web",
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "nginx",
            "Sysctls": {"net.core.somaxconn": "99"},
            "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["CAP_CHOWN"],
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
            "OomScoreAdj": 5,
            "Healthcheck": {"Test": ["CMD", "true"], "StartInterval": 2_000_000},
            "Privileges": {
                "CredentialSpec": {"Config": "x"},
                "Seccomp": {"Mode": "unconfined"},
                "AppArmor": {"Mode": "disabled"},
                "NoNewPrivileges": True,
            },
            "Configs": [{"ConfigID": "c", "Runtime": {"a": "b"}}],
            "Mounts": [
                {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Mode": 7, "Options": [["noexec"]]}}
            ],
        },
        "Resources": {"Limits": {"Pids": 9, "MemoryBytes": 1 << 26}},
        "Placement": {"MaxReplicas": 3, "Constraints": ["node.role==worker"]},
    },
}
GATES: dict[tuple[int, int], set[str]] = {
    (1, 40): {"Sysctls", "MaxReplicas", "Runtime", "CredentialSpec.Config"},
    (1, 41): {"CapabilityAdd", "CapabilityDrop", "Ulimits", "Pids"},
    (1, 44): {"Seccomp", "AppArmor", "NoNewPrivileges", "StartInterval"},
    (1, 46): {"OomScoreAdj", "TmpfsOptions.Options"},
}


def leaves(value: Any, path: str = "") -> set[str]:
    """Paths of all fields that say something."""
    if isinstance(value, dict) and value:
        return set().union(*(leaves(item, f"{path}.{key}") for key, item in value.items()))
    if isinstance(value, list) and value:
        return set().union(*(leaves(item, path) for item in value))
    return set() if value in (None, "", [], {}, 0, False) else {path}


@pytest.mark.parametrize(
    "version", [(1, 24), (1, 39), (1, 40), (1, 41), (1, 43), (1, 44), (1, 45), (1, 46), (1, 50)]
)
def test_a_version_drops_what_it_did_not_have(version: tuple[int, int]) -> None:
    spec = decoded(msgspec.json.encode(NEW), ServiceSpec)
    dropped = leaves(spec_json(spec)) - leaves(spec_json(understood(spec, version)))
    expected = set().union(*(names for since, names in GATES.items() if version < since))
    assert {path for path in dropped if not any(name in path for name in expected)} == set()
    assert {name for name in expected if not any(name in path for path in dropped)} == set()


@pytest.mark.parametrize("mode", [{"ReplicatedJob": {}}, {"GlobalJob": {}}])
async def test_jobs_before_1_41_are_refused_and_not_made_services_of(api: Api, mode: dict[str, Any]) -> None:
    status, problem = await api("POST", "/v1.40/services/create", service_body(Mode=mode))
    assert (status, "1.41" in problem["message"]) == (400, True)
    await api.ok("POST", "/v1.41/services/create", service_body(Mode=mode))


async def test_an_update_by_an_old_client(api: Api) -> None:
    id = await api.service(TaskTemplate={"ContainerSpec": {"Image": "nginx", "CapabilityAdd": ["CAP_CHOWN"]}})
    service = await api.ok("GET", f"/v1.40/services/{id}")
    await api.ok(
        "POST", f"/v1.40/services/{id}/update?version={service['Version']['Index']}", service["Spec"]
    )
    assert (
        "CapabilityAdd"
        not in (await api.ok("GET", f"/services/{id}"))["Spec"]["TaskTemplate"]["ContainerSpec"]
    )


async def test_status_is_of_1_41(api: Api) -> None:
    await api.service()
    assert "ServiceStatus" in (await api.ok("GET", "/v1.41/services?status=1"))[0]
    assert "ServiceStatus" not in (await api.ok("GET", "/v1.40/services?status=1"))[0]


@pytest.mark.parametrize("kind", ["secret", "config"])
async def test_templating_is_of_1_37(api: Api, kind: str) -> None:
    body = {"Name": "key", "Data": "eA==", "Templating": {"Name": "golang"}}
    status, problem = await api("POST", f"/v1.36/{kind}s/create", body)
    assert status == 400
    assert problem["message"] == f"{kind} templating is not supported on the specified API version: 1.36"
    await api.ok("POST", f"/v1.37/{kind}s/create", body)
