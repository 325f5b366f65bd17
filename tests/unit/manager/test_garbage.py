"""A full collection does not look at the state again and again."""

import gc
from collections.abc import Iterator

import pytest

from manager import garbage
from manager.store import Store
from tests.fakes.clock import ManualClock


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(garbage, "LONG", 0.0)
    before = list(gc.callbacks)
    garbage.keep_collections_short()
    yield
    gc.callbacks[:] = before
    gc.unfreeze()


@pytest.mark.usefixtures("watched")
def test_what_survives_a_long_collection_is_set_aside() -> None:
    frozen = gc.get_freeze_count()
    state = [[number] for number in range(10_000)]
    gc.collect(1)
    assert gc.get_freeze_count() == frozen  # Only full collections are long.
    gc.collect()
    assert gc.get_freeze_count() >= frozen + len(state)


@pytest.mark.usefixtures("watched")
def test_once_is_enough() -> None:
    callbacks = len(gc.callbacks)
    garbage.keep_collections_short()
    assert len(gc.callbacks) == callbacks


def test_making_a_large_state_is_not_interrupted() -> None:
    frozen = gc.get_freeze_count()
    with garbage.no_collections():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen  # In a process that does not keep collections short nothing leaks.


@pytest.mark.usefixtures("watched")
def test_what_was_made_is_set_aside() -> None:
    frozen = gc.get_freeze_count()
    with garbage.no_collections():
        state = [[number] for number in range(10_000)]
    assert gc.get_freeze_count() >= frozen + len(state)


def test_a_restore_that_is_given_up_lets_collections_go_on() -> None:
    store = Store(ManualClock())
    steps = store.restoring(1, store.snapshot())
    next(steps)
    assert not gc.isenabled()
    steps.close()
    assert gc.isenabled()
