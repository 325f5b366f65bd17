"""What the host's tables do when the kernel refuses."""

from typing import cast

import pytest

from netplane.errors import NetworkError
from netplane.host_rules import LAYOUT
from netplane.host_table import HostTable
from netplane.netlink.wire import NetlinkSocket


class Kernel:
    """Holds a table of another layout, with a port in it that names a set that is no more."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def run(self, commands: str) -> None:
        if "@mine" in commands:
            raise NetworkError("nftables: Error: No such file or directory")
        self.taken.append(commands)

    def list(self, what: str) -> str:
        if what.startswith("chain"):
            raise NetworkError("there is none")
        return "table ip shoal {\n\tchain port_tcp_80 {\n\t\tip saddr @mine accept\n\t}\n}\n"

    def close(self) -> None:
        pass


def test_ports_that_can_not_be_carried_over_keep_no_daemon_from_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = Kernel()
    HostTable(kernel, cast(NetlinkSocket, None), {}).start([], [])
    assert LAYOUT in kernel.taken[-1]
    assert "port_tcp_80" not in kernel.taken[-1]
    assert "published ports are closed until" in caplog.text
