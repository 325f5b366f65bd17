"""Log drivers and their options, as dockerd takes and refuses them."""

import pytest

from cluster.errors import InvalidArgument
from cluster.log_options import check_log_options, parse_size


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {}),
        ("json-file", {"max-size": "10m", "max-file": "3", "compress": "true"}),
        ("json-file", {"max-file": "3"}),  # dockerd takes it, to no effect
        ("json-file", {"max-size": "-1"}),
        ("json-file", {"labels": "a,b", "env-regex": "^A", "tag": "{{.Name}}"}),
        ("local", {"max-file": "2", "mode": "non-blocking", "max-buffer-size": "4m"}),
        ("journald", {"tag": "x", "labels-regex": ".*"}),
        ("none", {"max-size": "whatever"}),
    ],
    ids=str,
)
def test_taken(driver: str, options: dict[str, str]) -> None:
    check_log_options(driver, options)


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("gelf", {}, "no log driver named 'gelf' is registered"),
        ("json-file", {"colour": "x"}, "unknown log opt 'colour' for json-file log driver"),
        ("journald", {"max-size": "1m"}, "unknown log opt 'max-size' for journald"),
        ("json-file", {"max-size": "big"}, "invalid size"),
        ("json-file", {"max-size": "0"}, "positive"),
        ("json-file", {"max-size": "9" * 400}, "invalid size"),
        ("json-file", {"max-size": "1m", "max-file": "0"}, "at least 1"),
        ("json-file", {"compress": "true"}, "compress cannot be true"),
        ("json-file", {"compress": "yes"}, "invalid value for compress"),
        ("json-file", {"mode": "fast"}, "logging mode not supported: fast"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with"),
        ("json-file", {"env-regex": "("}, "invalid value for env-regex"),
        ("json-file", {"tag": "{{.Nope}}"}, "no field Nope"),
        ("json-file", {"tag": "{{lower 1}}"}, "a text is needed"),
    ],
)
def test_refused(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_log_options(driver, options)


def test_sizes() -> None:
    assert [parse_size(text) for text in ("512", "1k", "1.5g", "64KiB", "2 MB")] == [
        512, 1024, 3 << 29, 65536, 2 << 20,
    ]  # fmt: skip
