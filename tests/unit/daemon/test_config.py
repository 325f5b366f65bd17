"""Settings from flags and file: what is refused, and in which words."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import InvalidArgument
from shoal.daemon.config import Listener, listeners, load


def file(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_file_and_the_flags_together(tmp_path: Path) -> None:
    path = file(tmp_path, {"hosts": ["unix:///run/a.sock"], "labels": ["a=b"], "log-level": "warn"})
    config = load({"hosts": ("tcp://127.0.0.1:2375",), "labels": ("c",)}, path)
    assert config.hosts == ("unix:///run/a.sock", "tcp://127.0.0.1:2375")
    assert config.engine_labels == {"a": "b", "c": ""}
    assert config.log_level == "warn"


def test_defaults_for_containers(tmp_path: Path) -> None:
    config = load({}, file(tmp_path, {"log-driver": "local", "log-opts": {"max-size": "1m"}, "init": True}))
    assert (config.log_driver, config.log_opts, config.init) == ("local", {"max-size": "1m"}, True)


@pytest.mark.parametrize(
    ("content", "flags", "words"),
    [
        (
            {"log-level": "debug"},
            {"log_level": "info"},
            "both as a flag and in the configuration file .*log-level",
        ),
        ({"log-leve": "debug"}, {}, "unknown field `log-leve`"),
        ({"hosts": "x"}, {}, "Expected `array`"),
        ("{", {}, "not valid"),
        ("", {}, "not valid"),
        ({"log-level": "loud"}, {}, "use one of debug, info"),
        ({"default-runtime": "gvisor"}, {}, "use crun or runc"),
        ({"log-driver": "splunk"}, {}, "no log driver named 'splunk'"),
        ({"log-opts": {"max-size": "big"}}, {}, "invalid size"),
        (
            {"log-driver": "local"},
            {"log_driver": "none"},
            "both as a flag and in the configuration file .*log-driver",
        ),
        ({"labels": ["=x"]}, {}, "write key=value"),
        ({"hosts": ["ftp://x"]}, {}, "use unix://PATH or tcp://ADDRESS:PORT"),
        ({"hosts": ["unix://"]}, {}, "needs a path"),
        ({"hosts": ["unix:///" + "a" * 107]}, {}, "107 bytes at most"),
        ({"hosts": ["tcp://127.0.0.1:99999"]}, {}, "out of range"),
        ({"hosts": ["tcp://0.0.0.0:2375"]}, {}, "without TLS"),
        ({"hosts": ["tcp://[::]:2375"]}, {}, "without TLS"),
        ({"hosts": ["tcp://example.org:2375"]}, {}, "without TLS"),
    ],
)
def test_refused(tmp_path: Path, content: Any, flags: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        load(flags, file(tmp_path, content))


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="can't read the configuration file"):
        load({}, tmp_path / "nothing")


@pytest.mark.parametrize(
    ("flags", "listener"),
    [
        ({"hosts": ("tcp://localhost",)}, Listener(address="localhost", port=2375)),
        ({"hosts": ("tcp://[::1]:5",)}, Listener(address="::1", port=5)),
        ({"hosts": ("tcp://0.0.0.0",), "tlsverify": True}, Listener(address="0.0.0.0", port=2376, tls=True)),
        ({"hosts": ("tcp://0.0.0.0",), "allow_insecure_tcp": True}, Listener(address="0.0.0.0", port=2375)),
        ({"hosts": ("unix:///run/x.sock",), "tls": True}, Listener(path="/run/x.sock")),
    ],
)
def test_listeners(tmp_path: Path, flags: dict[str, Any], listener: Listener) -> None:
    assert listeners(load(flags, file(tmp_path, {}))) == [listener]
