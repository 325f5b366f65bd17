"""The checker itself: it accepts what may happen, and rejects every way to break a promise that it is for."""

import random

import pytest
from msgspec.structs import replace

from tests.chaos.history import Operation, Outcome, Seen
from tests.chaos.linearizability import check
from tests.chaos.register import Held

KIND = "config"


def create(begin: int, end: int | None, token: str, outcome: Outcome = "ok", id: str = "X") -> Operation:
    return _operation("create", begin, end, outcome, token=token, id=id if outcome == "ok" and end else "")


def update(begin: int, end: int | None, base: int, token: str, outcome: Outcome = "ok") -> Operation:
    return _operation("update", begin, end, outcome, token=token, base=base, id="X")


def remove(begin: int, end: int | None, outcome: Outcome = "ok", id: str = "X") -> Operation:
    return _operation("remove", begin, end, outcome, id=id)


def read(begin: int, end: int, version: int = 0, token: str = "", id: str = "X") -> Operation:
    return _operation("read", begin, end, "ok", seen=Seen(id, version, token) if version else None)


def _operation(action: str, begin: int, end: int | None, outcome: Outcome, **more: object) -> Operation:
    return Operation(
        client="c",
        kind=KIND,
        name="n",
        action=action,  # type: ignore[arg-type]
        invoked=begin,
        returned=end,
        outcome="unknown" if end is None else outcome,
        **more,  # type: ignore[arg-type]
    )


def of_kind(kind: str, *operations: Operation) -> list[Operation]:
    return [replace(operation, kind=kind) for operation in operations]


GOOD = {
    "nothing": [],
    "one after the other": [
        read(0, 1),
        create(2, 3, "a"),
        read(4, 5, 7, "a"),
        update(6, 7, 7, "b"),
        read(8, 9, 9, "b"),
        remove(10, 11),
        read(12, 13),
        create(14, 15, "c", id="Y"),
    ],
    "a read beside a write may see either": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, 10, 5, "b"),
        read(5, 6, 5, "a"),
        read(7, 8, 6, "b"),
    ],
    "one of two writers wins": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, 9, 5, "b", "sequence"),
        update(5, 8, 5, "c"),
        read(10, 11, 6, "c"),
    ],
    "an unknown write that happened late": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, None, 5, "b"),
        read(5, 6, 5, "a"),
        read(20, 21, 6, "b"),
    ],
    "an unknown write that never happened": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, None, 5, "b"),
        update(6, 7, 5, "c"),
        read(8, 9, 6, "c"),
    ],
    "an unknown create shows its id later": [
        create(0, None, "a"),
        create(1, 2, "b", "exists"),
        read(3, 4, 5, "a", id="Z"),
        remove(5, 6, id="Z"),
        read(7, 8),
    ],
    "an unknown removal": [create(0, 1, "a"), remove(2, None), read(3, 4, 5, "a"), read(5, 6)],
    "a name that is used again": [
        create(0, 1, "a"),
        remove(2, 3),
        update(4, 5, 9, "b", "missing"),
        remove(4, 5, "missing"),
        create(6, 7, "c", id="Y"),
        update(8, 9, 9, "d", "missing"),
        read(8, 9, 20, "c", id="Y"),
    ],
}

BAD = {
    "a stale read": [create(0, 1, "a"), read(2, 3, 5, "a"), update(4, 5, 5, "b"), read(6, 7, 5, "a")],
    "a read from before the creation": [create(0, 1, "a"), read(2, 3)],
    "reads that go back": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, 20, 5, "b"),
        read(5, 6, 6, "b"),
        read(7, 8, 5, "a"),
    ],
    "a lost update": [create(0, 1, "a"), read(2, 3, 5, "a"), update(4, 5, 5, "b"), read(6, 7, 6, "a")],
    "an update lost for good": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, 5, 5, "b"),
        update(6, 7, 5, "c"),
    ],
    "two winners for one version": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, 9, 5, "b"),
        update(5, 8, 5, "c"),
        read(10, 11, 7, "c"),
    ],
    "two objects with one name": [create(0, 1, "a"), create(2, 3, "b", id="Y")],
    "a lost create": [create(0, 1, "a"), read(2, 3, 5, "a"), read(4, 5)],
    "an object that comes back": [create(0, 1, "a"), remove(2, 3), read(4, 5, 5, "a")],
    "a refused write that happened all the same": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, 5, 5, "b", "sequence"),
        read(6, 7, 6, "b"),
    ],
    "a refusal without a reason": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, 5, 5, "b", "sequence"),
    ],
    "a refused creation of a free name": [create(0, 1, "a", "exists")],
    "a write from nowhere": [create(0, 1, "a"), read(2, 3, 5, "z")],
    "an unknown write before it was asked for": [
        create(0, 1, "a"),
        read(2, 3, 6, "b"),
        update(4, None, 5, "b"),
    ],
    "an unknown write that happens twice": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, None, 5, "b"),
        read(5, 6, 6, "b"),
        read(7, 8, 7, "b"),
    ],
    "a version that goes back": [
        create(0, 1, "a"),
        read(2, 3, 5, "a"),
        update(4, 5, 5, "b"),
        read(6, 7, 4, "b"),
    ],
    "a removal that is undone": [create(0, 1, "a"), remove(2, 3), remove(4, 5)],
}


@pytest.mark.parametrize("operations", GOOD.values(), ids=list(GOOD))
def test_accepted(operations: list[Operation]) -> None:
    verdict = check(operations)
    assert verdict.fine, verdict.why


@pytest.mark.parametrize("operations", BAD.values(), ids=list(BAD))
def test_rejected(operations: list[Operation]) -> None:
    assert not check(operations).fine


def test_controllers_may_raise_a_service_s_version_but_not_change_its_token() -> None:
    bumped = [create(0, 1, "a"), read(2, 3, 5, "a"), read(4, 5, 6, "a"), update(6, 7, 8, "b")]
    assert check(of_kind("service", *bumped)).fine
    assert not check(bumped).fine
    refused = [create(0, 1, "a"), read(2, 3, 5, "a"), update(4, 5, 5, "b", "sequence"), read(6, 7, 6, "a")]
    assert check(of_kind("service", *refused)).fine
    back = [create(0, 1, "a"), read(2, 3, 6, "a"), read(4, 5, 5, "a")]
    assert not check(of_kind("service", *back)).fine
    twice = [create(0, 1, "a"), read(2, 3, 5, "a"), update(4, 5, 5, "b"), update(6, 7, 5, "c")]
    assert not check(of_kind("service", *twice)).fine


def test_an_object_that_was_there_before() -> None:
    start = Held("X", "", 3, 0)
    assert check([read(0, 1, 3, "")], start).fine
    assert not check([read(0, 1)], start).fine


def test_the_story_names_what_does_not_fit() -> None:
    why = check(BAD["a stale read"]).why
    assert "token=b" in why.splitlines()[-3]
    assert "'token': 'a'" in why.splitlines()[-1]


class Simulated:
    """A correct register, with clients whose calls overlap and sometimes get no answer."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self.state: Seen | None = None
        self.index = 10
        self.ids = 0

    def history(self, count: int) -> list[Operation]:
        operations = []
        for number in range(count):
            begin = self.now
            self.now += self.random.randrange(1, 10)  # here it takes effect
            operations.append(self._one(begin - self.random.randrange(15), number))
            self.now += 1
        return operations

    def _one(self, begin: int, number: int) -> Operation:
        end: int | None = self.now + self.random.randrange(1, 20)
        if self.random.random() < 0.1:
            end = None
        action = self.random.choice(("create", "update", "update", "remove", "read", "read"))
        token = f"t{number}"
        happens = end is not None or self.random.random() < 0.5
        if action == "create":
            if self.state is not None:
                return create(begin, end, token, "exists")
            if happens:
                self.ids, self.index = self.ids + 1, self.index + 2
                self.state = Seen(f"i{self.ids}", self.index, token)
            return create(begin, end, token, id=f"i{self.ids}")
        if action == "update" and self.state is not None:
            base = self.state.version - (self.random.random() < 0.3)
            operation = _operation("update", begin, end, "ok", token=token, base=base, id=self.state.id)
            if base != self.state.version:
                return _operation("update", begin, end, "sequence", token=token, base=base, id=self.state.id)
            if happens:
                self.index += 2
                self.state = Seen(self.state.id, self.index, token)
            return operation
        if action == "remove" and self.state is not None:
            operation = remove(begin, end, id=self.state.id)
            if happens:
                self.state = None
            return operation
        return _operation("read", begin, self.now + 1, "ok", seen=self.state)


@pytest.mark.parametrize("seed", range(40))
def test_histories_of_a_correct_register_are_accepted(seed: int) -> None:
    verdict = check(Simulated(seed).history(120))
    assert verdict.fine, verdict.why


def test_a_long_history_with_one_lie_is_rejected() -> None:
    operations = Simulated(1).history(200)
    assert check(operations).fine
    seen = [(i, one) for i, one in enumerate(operations) if one.action == "read" and one.seen is not None]
    late, first = seen[-1][0], seen[0][1]
    lie = read(operations[late].invoked, operations[late].invoked + 1, 1, "never written")
    assert first.seen is not None
    assert not check([*operations[:late], lie, *operations[late + 1 :]]).fine
