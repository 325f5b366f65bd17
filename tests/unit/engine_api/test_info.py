"""GET /info: what is missing on a machine is said."""

from pathlib import Path

from worker.api.info import proxy
from worker.host_support import backing_filesystem, cgroup_support, warnings


def test_warnings_name_what_is_missing() -> None:
    support = dict.fromkeys(cgroup_support("2"), True) | {"IPv4Forwarding": False, "SwapLimit": False}
    assert warnings(support, "2") == [
        "WARNING: No swap limit support",
        "WARNING: IPv4 forwarding is disabled",
    ]


def test_both_versions_of_control_groups_tell_the_same_things() -> None:
    assert cgroup_support("1").keys() == cgroup_support("2").keys()


def test_credentials_of_a_proxy_are_not_shown() -> None:
    environment = {"HTTP_PROXY": "http://me:secret@proxy:3128", "no_proxy": "localhost,.example"}
    assert proxy("HTTP_PROXY", environment) == "http://xxxxx:xxxxx@proxy:3128"
    assert proxy("NO_PROXY", environment) == "localhost,.example"
    assert proxy("HTTPS_PROXY", environment) == ""


def test_the_file_system_of_a_path(tmp_path: Path) -> None:
    assert backing_filesystem(Path("/proc/self")) == "proc"
    assert backing_filesystem(tmp_path) != ""
