"""Partitions as nft rules, and what is found in /proc."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.playground import cgroups, processes
from shoal.playground.underlay import Cut, load_cuts, mac_address, make_cuts, ruleset, save_cuts

HOSTS = st.sampled_from(["host1", "host2", "host3", "client"])


def test_a_partition_is_symmetric_unless_asked_for_one_way() -> None:
    assert make_cuts("host1", ["host2"], one_way=False) == {Cut("host1", "host2"), Cut("host2", "host1")}
    assert make_cuts("host1", ["host2"], one_way=True) == {Cut("host1", "host2")}


def test_each_direction_has_its_chain() -> None:
    text = ruleset([Cut("host1", "host2"), Cut("host1", "client"), Cut("client", "host3")])
    forward = text[text.index("chain forward") : text.index("chain input")]
    assert 'iifname "host1" oifname "host2" drop' in forward
    to_client = text[text.index("chain input") : text.index("chain output")]
    assert 'iifname "host1" ip daddr 203.0.113.10 drop' in to_client
    assert 'oifname "host3" ip saddr 203.0.113.10 drop' in text[text.index("chain output") :]


def test_no_cuts_leave_no_table() -> None:
    assert ruleset([]).splitlines()[-1] == "delete table bridge shoal-playground"
    assert "drop" not in ruleset([])


@given(st.sets(st.builds(Cut, HOSTS, HOSTS)))
def test_one_rule_for_each_cut_whatever_their_order(cuts: set[Cut]) -> None:
    assert ruleset(cuts).count(" drop") == len(cuts)
    assert ruleset(cuts) == ruleset(sorted(cuts, reverse=True))


def test_cuts_survive_on_disk(tmp_path: Path) -> None:
    cuts = make_cuts("host1", ["host2", "client"], one_way=False)
    assert load_cuts(tmp_path / "cuts") == set()
    save_cuts(tmp_path / "cuts", cuts)
    assert load_cuts(tmp_path / "cuts") == cuts


@pytest.mark.parametrize(
    ("address", "expected"), [("192.0.2.11", "02:53:c0:00:02:0b"), ("203.0.113.10", "02:53:cb:00:71:0a")]
)
def test_hardware_addresses_follow_from_the_address(address: str, expected: str) -> None:
    assert mac_address(address) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/usr/bin/python\0-m\0shoal.playground.supervisor\0/p\0host1\0", ("/p", "host1")),
        (
            b"/usr/bin/python\0-m\0shoal.playground.supervisor\0/with space\0client\0",
            ("/with space", "client"),
        ),
        (b"/usr/bin/python\0-m\0shoal.playground.other\0/p\0host1\0", None),
        (b"vi\0shoal.playground.supervisor\0/p\0host1\0", None),
        (b"", None),
    ],
)
def test_supervisors_are_known_by_their_command_line(raw: bytes, expected: tuple[str, str] | None) -> None:
    assert processes.parse_command_line(raw) == expected


HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:39 / /mnt/cgroup rw,relatime - cgroup cgroup rw,pids
"""


def test_hybrid_hierarchies_are_found_with_their_mount_options() -> None:
    found = [(str(h.mount), h.kind, h.options) for h in cgroups.parse_mountinfo(HYBRID)]
    assert found == [
        ("/sys/fs/cgroup/memory", "cgroup", "memory"),
        ("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
        ("/sys/fs/cgroup/systemd", "cgroup", "name=systemd"),
        ("/sys/fs/cgroup/unified", "cgroup2", ""),
    ]


def test_a_pure_v2_machine_has_one_hierarchy() -> None:
    (found,) = cgroups.parse_mountinfo("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n")
    assert found.unified
    assert found.mount == cgroups.ROOT
