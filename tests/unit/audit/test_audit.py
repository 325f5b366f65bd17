"""The audit of `make check` finds what it is for, and says so when it could not look."""

import ast
import json

import pytest

from tests import audit


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", "import pickle"),
        ("from yaml import load", "import yaml"),
        ("x = eval(text)", "eval()"),
        ("os.system(text)  # noqa: S605", "os.system()"),
        ("subprocess.run(text, shell=True)", "shell=True"),
        ("subprocess.run(text, shell=anything)", "shell=True"),
        ("context.verify_mode = ssl.CERT_NONE", "ssl.CERT_NONE"),
    ],
)
def test_what_is_forbidden(source: str, found: str) -> None:
    assert [what for _, what in audit.forbidden(ast.parse(source))] == [found]


def test_what_is_not() -> None:
    source = "import json\nliteral_eval(x)\nconfig(shell=('sh',))\nre.compile('x')"
    assert list(audit.forbidden(ast.parse(source))) == []


def test_modules_that_nothing_declares() -> None:
    trees = [ast.parse("import os, pytest, manager.raft\nimport aiohttp.web")]
    modules = audit.third_party(trees)
    assert modules == {"pytest", "aiohttp"}
    problems = list(audit.dependency_problems(modules))
    assert "pytest is imported, but pyproject.toml does not list what has it" in problems
    assert "pyproject.toml lists msgspec, which nothing imports" in problems
    assert not any("aiohttp" in problem for problem in problems)


def report(*vulnerabilities: dict[str, object]) -> str:
    return json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": list(vulnerabilities)}]})


def test_advisories() -> None:
    assert audit.judged(report(), 3) == (True, "advisories: none for 1 of 3 packages")
    sound, sentence = audit.judged(report({"id": "CVE-1", "fix_versions": ["2"]}), 1)
    assert not sound
    assert "a 1: CVE-1, mended in 2" in sentence
    skipped = json.dumps({"dependencies": [{"name": "a", "skip_reason": "not found"}]})
    for nothing in ("", "{}", skipped):
        sound, sentence = audit.judged(nothing, 1)
        assert sound
        assert "SKIPPED" in sentence
