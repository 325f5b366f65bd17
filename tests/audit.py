"""`make audit`: nothing in the tree that should not be there; dependencies are declared, used and sound.

ruff's S rules (bandit's) look at the same code; what is looked for here can't be excused by a `noqa` either.
"""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cluster", "netplane", "worker", "manager", "shoal")
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "imp", "telnetlib", "ftplib"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "os.system", "os.popen", "tempfile.mktemp"}
FORBIDDEN_CALLS |= {"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.dump"}
FORBIDDEN_CALLS |= {"ssl._create_unverified_context", "asyncio.create_subprocess_shell"}
FORBIDDEN_NAMES = {"ssl.CERT_NONE"}
ALLOWED = {
    # Compose files: read by a loader made of SafeLoader, which makes no objects, and written by safe_dump.
    ("shoal/stack/document.py", "import yaml"),
    ("shoal/cli/stack.py", "import yaml"),
    # To fetch the root CA, before there is anything to verify with; it is then compared with the join token.
    ("shoal/daemon/join.py", "ssl.CERT_NONE"),
}
ADVISORIES = ".venv/audit"
"""Where pip-audit is installed, apart from what it looks at."""
PATIENCE = 120.0


def sources(packages: Sequence[str] = PACKAGES) -> Iterator[tuple[Path, ast.Module]]:
    """The parsed files of the shipped packages."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_bytes(), str(path))


def forbidden(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each forbidden construct."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported(node):
                if name.partition(".")[0] in FORBIDDEN_MODULES:
                    yield node.lineno, f"import {name}"
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in FORBIDDEN_CALLS:
                yield node.lineno, f"{name}()"
            elif name.startswith("subprocess.") and any(word.arg == "shell" for word in node.keywords):
                yield node.lineno, "shell=True"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN_NAMES:
            yield node.lineno, ast.unparse(node)


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that a statement names."""
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def third_party(trees: Sequence[ast.AST]) -> set[str]:
    """Top-level modules that are imported and are neither Python's nor ours."""
    names = {
        name.partition(".")[0]
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported(node)
    }
    return names - set(sys.stdlib_module_names) - set(PACKAGES) - {""}


def declared() -> set[str]:
    """The distributions that pyproject.toml lists for run time, in normal form."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = (re.match(r"[A-Za-z0-9._-]+", text) for text in project["dependencies"])
    return {normal(match[0]) for match in found if match}


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def dependency_problems(modules: set[str]) -> Iterator[str]:
    """Modules of no declared distribution, and declared distributions that nothing imports."""
    providers = importlib.metadata.packages_distributions()
    known = declared()
    used = set()
    for module in sorted(modules):
        distributions = {normal(name) for name in providers.get(module, ())}
        if not distributions & known:
            yield f"{module} is imported, but pyproject.toml does not list what has it"
        used |= distributions & known
    for name in sorted(known - used):
        yield f"pyproject.toml lists {name}, which nothing imports"


def advisories() -> tuple[bool, str]:
    """Whether no installed package is known to be vulnerable, as far as that can be told, and a sentence."""
    target = ROOT / ADVISORIES
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    try:
        if not (target / "pip_audit").is_dir():
            subprocess.run(
                [*pip, "install", "--quiet", "--target", target, "pip-audit"],
                check=True, capture_output=True, timeout=PATIENCE,
            )  # fmt: skip
        installed = subprocess.run(
            [*pip, "list", "--format=json", "--exclude-editable"],
            check=True, capture_output=True, timeout=PATIENCE,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return True, "advisories: SKIPPED: pip-audit can't be installed here (no package index?)"
    pins = [f"{package['name']}=={package['version']}\n" for package in json.loads(installed.stdout)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(pins)
        requirements.flush()
        try:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format=json"),
                    *("--progress-spinner=off", "--timeout=15", "--requirement", requirements.name),
                ],
                env={**os.environ, "PYTHONPATH": str(target)},
                capture_output=True, text=True, check=False, timeout=PATIENCE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return True, "advisories: SKIPPED: the source of advisories does not answer"
    return judged(done.stdout, len(pins))


def judged(report: str, installed: int) -> tuple[bool, str]:
    """What pip-audit's JSON says of so many packages."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        return True, "advisories: SKIPPED: the source of advisories can't be reached"
    looked_up = [package for package in packages if "vulns" in package]
    if not looked_up:
        return True, "advisories: SKIPPED: the source of advisories here knows none of the installed packages"
    bad = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, mended in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in looked_up
        for vulnerability in package["vulns"]
    ]
    if bad:
        return False, "advisories:\n  " + "\n  ".join(bad)
    return True, f"advisories: none for {len(looked_up)} of {installed} packages"


def main() -> int:
    """Look at everything; the exit status says whether something is wrong."""
    trees = list(sources())
    problems = [
        f"{path}:{line}: {what}"
        for path, tree in trees
        for line, what in forbidden(tree)
        if (str(path), what) not in ALLOWED
    ]
    problems += dependency_problems(third_party([tree for _, tree in trees]))
    sound, sentence = advisories()
    print(*problems, sentence, sep="\n")
    if not problems:
        print(f"audit: {len(trees)} files hold nothing forbidden; dependencies are declared and used")
    return 1 if problems or not sound else 0


if __name__ == "__main__":
    sys.exit(main())
