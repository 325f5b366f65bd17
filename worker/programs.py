"""The programs that run containers: which are here, and their versions. Asked once; they block."""

import functools
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.runtime.launch import find_init

RUNTIMES = ("crun", "runc")
_VERSION = re.compile(r"version:?\s+v?(\S+)")
_COMMIT = re.compile(r"commit:?\s+(\S+)")
_SECONDS = 5


@dataclass(frozen=True)
class Program:
    """A program; version and commit are "" when it does not tell."""

    name: str
    path: str
    version: str = ""
    commit: str = ""
    features: dict[str, Any] | None = None


@dataclass(frozen=True)
class Programs:
    """What this node runs containers with. `runtimes` by name."""

    runtimes: dict[str, Program]
    monitor: Program | None
    init: Program | None


@functools.cache
def programs() -> Programs:
    """Look at them."""
    found = [_program(name, features=True) for name in RUNTIMES]
    init = find_init()
    return Programs(
        runtimes={each.name: each for each in found if each is not None},
        monitor=_program("conmon"),
        init=_described("docker-init", init) if init is not None else None,
    )


def _program(name: str, *, features: bool = False) -> Program | None:
    path = shutil.which(name)
    return _described(name, Path(path), features=features) if path else None


def _described(name: str, path: Path, *, features: bool = False) -> Program:
    text = _output(path, "--version")
    version, commit = _VERSION.search(text), _COMMIT.search(text)
    known = commit[1] if commit is not None and commit[1] != "unknown" else ""
    return Program(
        name=name,
        path=str(path),
        version=version[1] if version is not None else "",
        commit=known,
        features=_features(path) if features else None,
    )


def _features(path: Path) -> dict[str, Any] | None:
    """What the runtime says of itself (runtime-spec, features.md), if it can."""
    try:
        told = json.loads(_output(path, "features"))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _output(path: Path, word: str) -> str:
    try:
        done = subprocess.run(
            [path, word],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
