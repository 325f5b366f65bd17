"""Whatever a Compose file holds: a stack, or a typed error."""

import contextlib
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from shoal.stack import deploy_section, environment, services
from shoal.stack.stack import Source, load

_INNER = (
    "a file external name source target type bind volume tmpfs size mode limits cpus memory condition delay "
    "subnet config driver aliases test interval soft hard spread constraints << x-y content"
)
_WORDS = st.sampled_from([*services.FIELDS, *deploy_section.FIELDS, *_INNER.split()])
_TEXTS = st.one_of(
    _WORDS,
    st.text(max_size=12),
    st.sampled_from(
        ["${A:-1}", "${", "$$", "8080:80", "80-90:1", "a:/b:ro", "1s", "5g", "global", "[]", "\ud800"]
    ),
)
_LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), _TEXTS)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=8,
)
_SERVICES = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(_WORDS, _VALUES, max_size=5).map(lambda s: {"image": "i", **s})
)
_FILES = st.fixed_dictionaries(
    {"services": _SERVICES},
    optional={
        key: st.dictionaries(_WORDS, _VALUES, max_size=3) for key in ("networks", "volumes", "configs")
    },
)


def _load(*texts: str) -> None:
    source = Source([(f"{n}.yml", text) for n, text in enumerate(texts)], Path("/nonexistent"), {})
    with contextlib.suppress(InvalidArgument):
        json.dumps([service.spec for service in load(source, "s").services])


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    _load(text)
    with contextlib.suppress(InvalidArgument):
        environment.parse(text, "f")


@settings(max_examples=300, deadline=None)
@given(st.lists(_FILES, min_size=1, max_size=2))
def test_nearly_right_files(files: list[object]) -> None:
    _load(*(json.dumps(file) for file in files))
