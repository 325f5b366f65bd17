"""Signals by name, and processes by identity."""

import os
import signal

import msgspec
import pytest

from worker.runtime.process import identify, open_process, signal_number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1),
    ],
)
def test_signal_number(name: str, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["", "SIGNOPE", "0", "99", "RTMIN+x", "-1"])
def test_unknown_signals(name: str) -> None:
    with pytest.raises(ValueError, match="no such signal"):
        signal_number(name)


def test_a_reused_pid_is_another_process() -> None:
    me = identify(os.getpid())
    assert me is not None
    descriptor = open_process(me)
    assert descriptor is not None
    os.close(descriptor)
    assert open_process(msgspec.structs.replace(me, start_time=me.start_time + 1)) is None
    assert open_process(msgspec.structs.replace(me, boot_id="other")) is None
    assert identify(2**22 + 5) is None
