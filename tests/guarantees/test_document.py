"""docs/guarantees.md and its proofs: no promise without a test, no test here without a promise."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = {
    title: text
    for title, text in re.findall(
        r"^## (\d+\. [^\n]+)\n(.*?)(?=^## |\Z)", (ROOT / "docs/guarantees.md").read_text(), re.M | re.S
    )
}


def proofs(text: str) -> list[tuple[str, str]]:
    """The (file, test) pairs that a promise names after the word "Proof"."""
    _, _, named = text.partition("*Proof:*")
    found, path = [], ""
    for word in re.findall(r"`([^`]+)`", named):
        if word.endswith(".py"):
            path = word
        else:
            found.append((path, word))
    return found


def names_of(path: Path) -> set[str]:
    """The names of the test functions of a module."""
    tree = ast.parse(path.read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_all_nine_promises_are_there() -> None:
    assert len(PROMISES) == 9


@pytest.mark.parametrize("title", PROMISES)
def test_a_promise_names_tests_that_exist(title: str) -> None:
    named = proofs(PROMISES[title])
    assert named, f"{title!r} names no test"
    for path, name in named:
        assert (ROOT / path).is_file(), f"{title!r} names {path}, which is not there"
        assert name in names_of(ROOT / path), f"{title!r} names {name}, which is not in {path}"


def test_every_test_here_belongs_to_a_promise() -> None:
    named = {pair for text in PROMISES.values() for pair in proofs(text)}
    own = Path(__file__)
    for module in own.parent.glob("test_*.py"):
        if module != own:
            path = str(module.relative_to(ROOT))
            orphans = names_of(module) - {name for file, name in named if file == path}
            assert not orphans, f"no promise in docs/guarantees.md names these of {path}: {sorted(orphans)}"
