import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from worker.images.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"),
        ("library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("user/app:x", "docker.io/user/app:x", "user/app:x"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("host:5000/a/b:t", "host:5000/a/b:t", "host:5000/a/b:t"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("quay.io/x/y", "quay.io/x/y:latest", "quay.io/x/y:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}", f"nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}", f"nginx:1@{DIGEST}"),
    ],
)
def test_normalises_like_docker(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":x",
        "Nginx",
        "a//b",
        "-a",
        "a:",
        "a:b:c",
        "a@sha256:12",
        "a@md5:" + "0" * 32,
        "a" * 300,
        "f" * 64,
        "a/../b",
        "http://x/y",
        "a b",
        "a\n",
        "a:b\n",
        "host:port/x",
        "a/B",
    ],
)
def test_refuses_what_docker_refuses(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid reference format"):
        Reference.parse(text)


component = st.from_regex(r"[a-z0-9]+(?:[._-][a-z0-9]+)?", fullmatch=True)
domains = st.sampled_from(
    ["", "docker.io/", "localhost/", "localhost:5000/", "r.example.org/", "127.0.0.1:81/"]
)
tags = st.one_of(st.just(""), st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
digests = st.sampled_from(["", f"@{DIGEST}"])


@given(domains, st.lists(component, min_size=1, max_size=3), tags, digests)
def test_both_forms_mean_the_same(domain: str, path: list[str], tag: str, digest: str) -> None:
    if path[0] == "localhost" or "." in path[0]:
        return
    reference = Reference.parse(domain + "/".join(path) + tag + digest)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidArgument:
        return
    assert Reference.parse(str(reference)) == reference
