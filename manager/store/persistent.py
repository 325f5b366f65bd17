"""An ordered map whose versions share memory: what the store's immutable views are made of.

A version is a large shared `base` and a small `delta` of what changed since. Changing a few keys copies the
delta only; once the delta holds more than the square root of the whole, it is folded into a new base. Taking
a version costs nothing, reading one costs one or two dict look-ups.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar, cast

K = TypeVar("K")
V = TypeVar("V")


class _Absent:
    """A key that `base` has and this version hasn't."""


ABSENT: Final = _Absent()
_SMALLEST_FOLD = 32


class PersistentMap(Generic[K, V]):
    """Immutable, iterated in the order in which keys were first set (a replaced value keeps its place)."""

    __slots__ = ("_base", "_delta", "_length")

    def __init__(self, items: dict[K, V] | None = None) -> None:
        self._base: dict[K, V] = dict(items) if items else {}
        self._delta: dict[K, V | _Absent] = {}
        self._length = len(self._base)

    def get(self, key: K) -> V | None:
        """The value of `key`, or None."""
        value = self._delta.get(key)
        if value is None:
            return self._base.get(key)
        return None if value is ABSENT else cast(V, value)

    def __contains__(self, key: object) -> bool:
        value = self._delta.get(cast(K, key))
        return value is not ABSENT if value is not None else key in self._base

    def __len__(self) -> int:
        return self._length

    def items(self) -> Iterator[tuple[K, V]]:
        """Pairs in order of first setting."""
        base, delta = self._base, self._delta
        if not delta:
            yield from base.items()
            return
        for key, value in base.items():
            current = delta.get(key)
            if current is None:
                yield key, value
            elif current is not ABSENT:
                yield key, cast(V, current)
        for key, changed in delta.items():
            if changed is not ABSENT and key not in base:
                yield key, cast(V, changed)

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self.items())

    def values(self) -> Iterator[V]:
        """Values in order of first setting."""
        return (value for _, value in self.items())

    def with_changes(self, changes: Mapping[K, V | _Absent]) -> "PersistentMap[K, V]":
        """A version in which every key of `changes` has its value, or is gone where the value is ABSENT."""
        base, delta, length = self._base, dict(self._delta), self._length
        for key, value in changes.items():
            current = delta.get(key)
            present = current is not ABSENT if current is not None else key in base
            if value is ABSENT:
                if not present:
                    continue
                length -= 1
                if key in base:
                    delta[key] = ABSENT
                else:
                    del delta[key]
            else:
                if current is ABSENT:  # set anew: it comes last, so the old place must go first
                    base, delta = _fold(base, delta), {}
                length += not present
                delta[key] = value
        if len(delta) > _SMALLEST_FOLD and len(delta) ** 2 > length:
            base, delta = _fold(base, delta), {}
        result: PersistentMap[K, V] = PersistentMap.__new__(PersistentMap)
        result._base, result._delta, result._length = base, delta, length
        return result


def _fold(base: dict[K, V], delta: dict[K, V | _Absent]) -> dict[K, V]:
    folded = dict(base)
    for key, value in delta.items():
        if value is ABSENT:
            folded.pop(key, None)
        else:
            folded[key] = cast(V, value)
    return folded
