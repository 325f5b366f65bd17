"""What the API's fuzz tests share: sound bodies, ways to spoil them, and what must hold whatever is sent."""

import asyncio
import copy
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.unit.api.manager import Api

REFUSALS = {400, 403, 404, 409, 413, 501}

FULL_SERVICE: dict[str, Any] = {
    "Name": "web",
    "Labels": {"a": "b"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "registry:5000/nginx:1@sha256:" + "a" * 64,
            "Env": ["A=b"],
            "Command": ["x"],
            "Mounts": [
                {"Type": "volume", "Source": "data", "Target": "/v", "VolumeOptions": {"NoCopy": True}}
            ],
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000_000, "Retries": 3},
            "StopGracePeriod": 1,
            "DNSConfig": {"Nameservers": ["1.1.1.1"]},
            "Privileges": {"NoNewPrivileges": True, "Seccomp": {"Mode": "default"}},
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
            "OomScoreAdj": -5,
            "Init": True,
        },
        "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 1 << 26}, "Reservations": {}},
        "RestartPolicy": {"Condition": "any", "Delay": 1, "MaxAttempts": 2, "Window": 3},
        "Placement": {
            "Constraints": ["node.role==worker"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}],
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}],
        },
        "Networks": [{"Target": "front", "Aliases": ["w"]}],
        "ForceUpdate": 1,
        "Runtime": "container",
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
    },
    "Mode": {"Replicated": {"Replicas": 2}},
    "UpdateConfig": {
        "Parallelism": 1,
        "FailureAction": "rollback",
        "MaxFailureRatio": 0.5,
        "Order": "start-first",
    },
    "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]},
}
FULL_NETWORK: dict[str, Any] = {
    "Name": "back",
    "Driver": "overlay",
    "Internal": True,
    "Options": {"encrypted": ""},
    "IPAM": {
        "Driver": "default",
        "Config": [
            {
                "Subnet": "10.77.0.0/24",
                "Gateway": "10.77.0.1",
                "IPRange": "10.77.0.128/25",
                "AuxiliaryAddresses": {"r": "10.77.0.2"},
            }
        ],
    },
}
SECRET: dict[str, Any] = {"Name": "key", "Data": "eA==", "Labels": {"a": "b"}}
NODE: dict[str, Any] = {"Role": "worker", "Availability": "active", "Labels": {"a": "b"}, "Name": "n"}
SWARM: dict[str, Any] = {
    "Name": "default",
    "Labels": {},
    "Orchestration": {"TaskHistoryRetentionLimit": 3},
    "Raft": {"SnapshotInterval": 100, "KeepOldSnapshots": 1},
    "Dispatcher": {"HeartbeatPeriod": 1_000_000_000},
    "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000, "ExternalCAs": []},
    "EncryptionConfig": {"AutoLockManagers": False},
}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 65535, 65536, 1 << 31, 1 << 62, 1 << 63, 1 << 64, 1 << 80]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        ["", "\0", "..", "a" * 300, "host", "ingress", "global", "node.role!=", "10.0.0.0/8", "::/0"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


@st.composite
def spoiled(draw: st.DrawFn, base: dict[str, Any]) -> dict[str, Any]:
    """A sound body in which up to three places were replaced or removed."""
    body = copy.deepcopy(base)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(places(body) or [("Name",)]))
        target: Any = body
        for key in path[:-1]:
            target = target[key]
        if draw(st.booleans()) or path[-1] not in (
            target if isinstance(target, dict) else range(len(target))
        ):
            target[path[-1]] = draw(values)
        else:
            del target[path[-1]]
    return body


class Fuzzed:
    """The API on a loop of its own, so that examples can share it."""

    def __init__(self, runner: asyncio.Runner, api: Api) -> None:
        self.runner = runner
        self.api = api

    def __call__(self, method: str, path: str, body: Any = None, **sent: Any) -> tuple[int, Any]:
        before = self.api.index
        status, answer = self.runner.run(self.api(method, path, body, **sent))
        assert status < 400 or status in REFUSALS, (status, answer)
        if status >= 400:
            assert list(answer) == ["message"]
            assert answer["message"]
            assert self.api.index == before
        return status, answer

    def version(self, path: str) -> int:
        status, answer = self.runner.run(self.api("GET", path))
        assert status == 200
        return int(answer["Version"]["Index"])


def fuzz(share: float = 1.0) -> settings:
    """How many examples a test tries: a share of 100, or of SHOAL_FUZZ_EXAMPLES (`make fuzz`)."""
    return settings(
        max_examples=max(1, int(share * int(os.environ.get("SHOAL_FUZZ_EXAMPLES", "100")))),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
